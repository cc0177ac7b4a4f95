/** Walks the whole command tree: every command explains itself, and its examples are right. */
import assert from "node:assert/strict";
import { type Command, CommanderError } from "@commander-js/extra-typings";
import { closest, didYouMean } from "./control_plane/suggest.ts";
import { COMMANDS } from "./commands.ts";
import { pathOf } from "./help.ts";
import { buildProgram } from "./program.ts";
import { runNeon } from "../tests/harness.ts";

/** Columns of a terminal that help has to fit in. */
const COLUMNS = 80;

function* walk(command: Command): Generator<Command> {
  yield command;
  for (const sub of command.commands) yield* walk(sub as Command);
}

/** Every command, each in a program of its own as `neon` builds it. */
async function allCommands(): Promise<Command[]> {
  const programs = [await buildProgram([])];
  for (const name of Object.keys(COMMANDS)) {
    programs.push((await buildProgram([name])).commands[0] as Command);
  }
  return [programs[0]!, ...programs.slice(1).flatMap((command) => [...walk(command)])];
}

/** What a command line prints, and the exit code that commander wants for it. */
async function parse(args: string[]): Promise<{ code: number; text: string }> {
  const program = await buildProgram(args);
  let text = "";
  for (const command of walk(program)) {
    const write = (part: string) => void (text += part);
    command.configureOutput({ writeOut: write, writeErr: write, getOutHelpWidth: () => COLUMNS });
    if (command.commands.length === 0) command.action(() => {});
  }
  try {
    await program.parseAsync(args, { from: "user" });
    return { code: 0, text };
  } catch (thrown) {
    assert.ok(thrown instanceof CommanderError, String(thrown));
    return { code: thrown.exitCode, text };
  }
}

/** Splits a command line as a shell does. */
function shellWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c!);
}

function examplesIn(help: string): string[] {
  return help.split("Examples:\n")[1]!.split("\n")
    .filter((line) => line.startsWith("  neon "))
    .flatMap((line) => line.replace(/ {2}# .*| > .*/g, "").trim().split(" && "));
}

Deno.test("every command, option and argument says what it is, in one line", async () => {
  const commands = await allCommands();
  assert.ok(commands.length > 40, `all commands are looked at, not ${commands.length}`);
  for (const command of commands) {
    const path = pathOf(command as never);
    assert.match(command.description(), /^\S[^\n]{5,}$/, path);
    for (const { flags, description } of command.options) {
      assert.match(description, /^\S[^\n]{4,}$/, `${path} ${flags}`);
    }
    for (const argument of command.registeredArguments) {
      assert.match(argument.description, /^\S[^\n]{4,}$/, `${path} ${argument.name()}`);
    }
  }
});

Deno.test("every command's help fits a terminal and has examples that parse", async () => {
  for (const command of await allCommands()) {
    const path = pathOf(command as never).split(" ").slice(1);
    const { code, text } = await parse([...path, "--help"]);
    assert.equal(code, 0, path.join(" "));
    assert.match(text, /^Usage: neon/);
    const wide = text.split("\n")
      .filter((line) => line.length > COLUMNS && !/[0-9a-f]{32}/.test(line));
    assert.deepEqual(wide, [], path.join(" "));
    const examples = examplesIn(text);
    assert.ok(examples.length > 0, `${path.join(" ")} has examples`);
    for (const example of examples) {
      const words = shellWords(example).slice(1);
      const parsed = await parse(words);
      assert.equal(parsed.code, 0, `${example}: ${parsed.text}`);
      if (path.length > 0) assert.deepEqual(words.slice(0, path.length), path, example);
    }
  }
});

/** Commands that need no local Neon: they make one, or read files that are named. */
const WITHOUT_STATE = /^neon (init|quickstart|completion|wal verify|wal (dump|stats) [^-])/;

Deno.test("every command works on the directory that NEON_REPO_DIR names", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "neon-elsewhere-" });
  const before = Deno.env.get("NEON_REPO_DIR");
  Deno.env.set("NEON_REPO_DIR", `${directory}/state`);
  try {
    let count = 0;
    for (const command of await allCommands()) {
      if (command.commands.length > 0) continue;
      const path = pathOf(command as never).split(" ").slice(1);
      for (const example of examplesIn((await parse([...path, "--help"])).text)) {
        if (WITHOUT_STATE.test(example)) continue;
        const args = shellWords(example).slice(1);
        await assert.rejects(
          async () => await (await buildProgram(args)).parseAsync(args, { from: "user" }),
          { message: new RegExp(`"${directory}/state"`) },
          example,
        );
        count++;
      }
    }
    assert.ok(count > 50, `${count} examples were run`);
    assert.deepEqual([...Deno.readDirSync(directory)], [], "they leave nothing there");
  } finally {
    if (before === undefined) Deno.env.delete("NEON_REPO_DIR");
    else Deno.env.set("NEON_REPO_DIR", before);
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("help of a subcommand is there however it is asked for", async () => {
  const { text } = await parse(["timeline", "branch", "--help"]);
  assert.deepEqual(await parse(["timeline", "help", "branch"]), { code: 0, text });
  const asked = await runNeon("/nowhere", ["help", "timeline", "branch"]);
  assert.deepEqual([asked.code, asked.stdout.split("\n")[0]], [0, text.split("\n")[0]]);
  const wrong = await runNeon("/nowhere", ["help", "timelin"]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /^error: unknown command 'timelin'; did you mean timeline\?.*\n$/);
});

Deno.test("wrong usage is one line that says what was probably meant", async () => {
  const said = async (...args: string[]) => {
    const { code, text } = await parse(args);
    assert.equal(code, 1);
    return text;
  };
  assert.equal(
    await said("timelin"),
    `error: unknown command 'timelin'; did you mean timeline? ("neon --help" shows how)\n`,
  );
  assert.equal(
    await said("timeline", "brnch"),
    `error: unknown command 'brnch'; did you mean branch? ("neon timeline --help" shows how)\n`,
  );
  assert.equal(
    await said("timeline", "branch", "--brnch-name", "x"),
    "error: unknown option '--brnch-name'; did you mean --branch-name? " +
      '("neon timeline branch --help" shows how)\n',
  );
  assert.match(await said("timeline", "branch"), /^error: required option '--branch-name.*\n$/);
  assert.match(await said("timeline", "list", "x"), /^error: too many arguments.*\n$/);
  const odd = await runNeon("/nowhere", ["constructor"]);
  assert.deepEqual([odd.code, odd.stdout], [2, ""]);
  assert.match(odd.stderr, /^error: unknown command 'constructor' \("neon --help".*\n$/);
});

Deno.test("closest() finds the name that was mistyped", () => {
  const names = ["main", "dev", "migration_check", "constructor"];
  assert.equal(closest("mian", names), "main");
  assert.equal(closest("Main", names), "main");
  assert.equal(closest("dve", names), "dev");
  assert.equal(closest("migration-chek", names), "migration_check");
  assert.equal(closest("migr", names), "migration_check");
  assert.equal(closest("production", names), undefined);
  assert.equal(closest("x", names), undefined);
  assert.equal(closest("", names), undefined);
  assert.equal(closest("main", []), undefined);
  assert.equal(didYouMean("mian", names), '; did you mean "main"?');
  assert.equal(didYouMean("production", names), "");
});
