/** Numbers of a benchmark as text: medians with their spreads, ratios, tables in Markdown, JSON. */

/** The middle of the values and how far they lie apart. */
interface Summary {
  readonly median: number;
  /** Nine of ten are not above it. */
  readonly p90: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** Summarises at least one value. */
export function summarise(values: readonly number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
  const p90 = sorted[Math.ceil(sorted.length * 0.9) - 1]!;
  return { median, p90, min: sorted[0]!, max: sorted.at(-1)!, count: sorted.length };
}

/** A number with as many decimals as its size makes sensible. */
export function figure(value: number): string {
  const decimals = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(decimals);
}

/** "12.3 (11.8 to 15.0)". */
export function figures(summary: Summary): string {
  return `${figure(summary.median)} (${figure(summary.min)} to ${figure(summary.max)})`;
}

/** "12.3, p90 14.1 (11.8 to 15.0)". */
export function figuresWithP90(summary: Summary): string {
  const { median, p90, min, max } = summary;
  return `${figure(median)}, p90 ${figure(p90)} (${figure(min)} to ${figure(max)})`;
}

/** A Markdown table. */
export function markdownTable(head: readonly string[], rows: readonly string[][]): string {
  const widths = head.map((cell, column) =>
    Math.max(cell.length, 3, ...rows.map((row) => row[column]!.length))
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** What the figures were measured on, for the line above a table. */
export function machine(): string {
  const [one] = Deno.loadavg();
  const cores = navigator.hardwareConcurrency;
  return `${cores} cores, load ${one!.toFixed(1)} at the start, Deno ${Deno.version.deno}`;
}

/** Writes everything measured to the file that `--json FILE` names, if it is there. */
export function writeJson(args: readonly string[], measured: unknown): void {
  const path = textOption(args, "json");
  if (path !== undefined) Deno.writeTextFileSync(path, JSON.stringify(measured, null, 2) + "\n");
}

/** What is behind `--name`, if it is there. */
export function textOption(args: readonly string[], name: string): string | undefined {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? undefined : args[at + 1];
}

/** The number behind `--name`, or `otherwise`. */
export function numberOption(args: readonly string[], name: string, otherwise: number): number {
  const at = args.indexOf(`--${name}`);
  if (at < 0) return otherwise;
  const value = Number(args[at + 1]);
  if (!Number.isFinite(value) || value <= 0) {
    throw new Error(`Cannot use --${name} ${args[at + 1]}`);
  }
  return value;
}

/** Ends the program, with what can be asked for, on `--help` and on any option but these. */
export function allowOptions(args: readonly string[], names: readonly string[]): void {
  const asked = args.filter((arg) => arg.startsWith("--")).map((arg) => arg.slice(2));
  const unknown = asked.find((name) => name !== "help" && !names.includes(name));
  if (unknown === undefined && !asked.includes("help")) return;
  const known = `options: ${names.map((name) => `--${name}`).join(", ")}; see the head of the file`;
  if (unknown === undefined) console.log(known);
  else console.error(`error: Cannot use --${unknown}; ${known}`);
  Deno.exit(unknown === undefined ? 0 : 2);
}
