/**
 * Where figures are kept: `bench/results/figures.json` has all values, `figures.md` the tables, and
 * the README shows the same between two marks.
 */
import { join } from "node:path";
import { programFile } from "../../cli/control_plane/supervisor.ts";
import { type Group, groupTable } from "./row.ts";

/** What was measured, and on what. */
export interface Figures {
  readonly date: string;
  readonly machine: string;
  readonly settings: string;
  readonly groups: readonly Group[];
}

const DIRECTORY = "bench/results";
const BEGIN = "<!-- figures: written by deno task bench --save -->";
const END = "<!-- end of figures -->";

/** Everything as Markdown. */
export function markdown({ date, machine, settings, groups }: Figures): string {
  const head = `${date}; ${machine}. ${settings}`;
  return [head, ...groups.map(groupTable)].join("\n\n") + "\n";
}

/** The part of the README between the marks. Throws an Error if they are not there. */
export function figuresOf(readme: string): string {
  const [from, to] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (from < 0 || to < from) throw new Error("README.md has no place for figures");
  return readme.slice(from + BEGIN.length, to).trim();
}

/** Writes the files, and the README's part. */
export function save(figures: Figures): void {
  const directory = programFile(DIRECTORY);
  Deno.mkdirSync(directory, { recursive: true });
  const text = markdown(figures);
  Deno.writeTextFileSync(join(directory, "figures.md"), text);
  Deno.writeTextFileSync(
    join(directory, "figures.json"),
    JSON.stringify(figures, null, 2) + "\n",
  );
  const path = programFile("README.md");
  const readme = Deno.readTextFileSync(path);
  const [before, after] = [readme.split(BEGIN)[0]!, readme.split(END)[1]!];
  Deno.writeTextFileSync(path, `${before}${BEGIN}\n\n${text}\n${END}${after}`);
}
