/** Whatever command line quickParse() takes on itself, commander reads the same way. */
import assert from "node:assert/strict";
import * as commander from "@commander-js/extra-typings";
import { builtBy, Definition } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { present } from "./help.ts";
import { quickParse } from "./quick_parse.ts";

/** What actions were called with: the subcommand's name, its arguments and options. */
type Heard = readonly unknown[][];

/** The same command, whose actions only say what they were called with. */
function overheard(definition: Definition, heard: unknown[][]): Definition {
  const copy = new Definition(definition.kind, definition.made);
  const places = definition.calls.filter(([method]) => /^(add)?argument$/i.test(method)).length;
  for (const [method, args] of definition.calls) {
    const action = (...given: unknown[]) =>
      void heard.push([definition.made[0], ...given.slice(0, places + 1)]);
    if (method === "action") copy.calls.push([method, [action]]);
    else if (method === "addCommand") {
      copy.calls.push([method, [overheard(args[0] as Definition, heard)]]);
    } else copy.calls.push([method, args]);
  }
  return copy;
}

async function heardByCommander(definition: Definition, words: string[]): Promise<Heard> {
  const heard: unknown[][] = [];
  const program = builtBy(commander, overheard(definition, heard)) as commander.Command;
  const presented = program as unknown as Parameters<typeof present>[0];
  present(presented, words);
  presented.configureOutput({ writeErr: () => {}, writeOut: () => {} });
  for (const sub of presented.commands) sub.configureOutput({ writeErr: () => {} });
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (thrown) {
    assert.ok(thrown instanceof commander.CommanderError, String(thrown));
  }
  return heard;
}

function heardQuickly(definition: Definition, words: string[]): Heard | undefined {
  const heard: unknown[][] = [];
  const run = quickParse(overheard(definition, heard), words);
  run?.();
  return run === undefined ? undefined : heard;
}

/** Words that stand where values are wanted, some of them for nothing. */
const VALUES = [
  ...["main", "1", "17", "fast", "true", "0/16B5A50", "10s", "a=b", "heap", "1663/5/1259", ""],
  ...["9ef87a5bf0d92544f6fafeeb3239695c", "2026-11-21T17:46:15Z", "-1", "-x", "-", "--", "help"],
];

/** The same numbers for everybody (Park and Miller's generator). */
function numbers(): (below: number) => number {
  let state = 20261121;
  return (below) => (state = state * 48271 % 0x7fffffff) % below;
}

/** Flags of all options of a definition: "-c, --config <name=value>". */
function flagsOf({ calls }: Definition): string[] {
  return calls.flatMap(([method, [first]]) => {
    if (method === "addOption") return [String((first as Definition).made[0])];
    return /ption$/.test(method) && typeof first === "string" ? [first] : [];
  }).filter((flags) => flags.startsWith("-"));
}

function randomWords(definition: Definition, next: (below: number) => number): string[] {
  const value = () => VALUES[next(VALUES.length)]!;
  const words: string[] = [];
  const subs = definition.calls.filter(([method]) => method === "addCommand")
    .map(([, [sub]]) => sub as Definition);
  let leaf = definition;
  if (subs.length > 0 && next(20) > 0) {
    words.push(String((leaf = subs[next(subs.length)]!).made[0]));
  }
  const flags = [...flagsOf(leaf), "--other", "--help", "-h"];
  for (const flag of flagsOf(leaf)) {
    if (/required/i.test(String(leaf.calls.find(([, args]) => args[0] === flag)?.[0]))) {
      words.push(/--[a-z-]+/.exec(flag)![0], value());
    }
  }
  for (let count = next(5); count > 0; count--) {
    const flag = flags[next(flags.length - (next(8) > 0 ? 3 : 0))];
    const spellings = flag?.match(/--?[a-zA-Z-]+/g) ?? [];
    const spelling = spellings[next(spellings.length)];
    if (spelling === undefined || next(4) === 0) words.push(value());
    else if (next(3) === 0) words.push(`${spelling}=${value()}`);
    else words.push(spelling, ...(flag!.includes("<") === next(12) > 0 ? [value()] : []));
  }
  return words;
}

Deno.test("quickParse() reads a command line as commander does, or leaves it to it", async () => {
  const next = numbers();
  let taken = 0;
  let called = 0;
  for (const { load } of Object.values(COMMANDS)) {
    const definition = (await load()).command() as Definition;
    for (let i = 0; i < 500; i++) {
      const words = randomWords(definition, next);
      const quickly = heardQuickly(definition, words);
      if (quickly === undefined) continue;
      taken++;
      called += quickly.length;
      assert.deepEqual(await heardByCommander(definition, words), quickly, words.join(" "));
    }
  }
  assert.ok(taken > 1000 && called === taken, `${taken} lines were compared`);
});

Deno.test("quickParse() takes what is plainly right", async () => {
  const of = async (name: string) => (await COMMANDS[name]!.load()).command() as Definition;
  const timeline = await of("timeline");
  assert.deepEqual(
    heardQuickly(timeline, ["branch", "--branch-name", "x", "--start", "--json"]),
    [["branch", { ancestorBranchName: "main", branchName: "x", start: true, json: true }]],
  );
  const endpoint = await of("endpoint");
  assert.deepEqual(
    heardQuickly(endpoint, ["start", "x", "-c", "a=1", "--config=b=2", "--pg-port", "5000"]),
    [["start", "x", { config: ["a=1", "b=2"], pgPort: 5000 }]],
  );
  for (const words of [[], ["branch"], ["--help"], ["branch", "--branch-name"], ["list", "x"]]) {
    assert.equal(heardQuickly(timeline, words), undefined, words.join(" "));
  }
});
