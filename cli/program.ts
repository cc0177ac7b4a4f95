/**
 * The command line as a whole: finds the command that is meant, loads it alone, and runs it.
 *
 * Exit codes: 0 done, 1 failed (one line on standard error says why and what to do), 2 wrong usage.
 */
import { Command, CommanderError, InvalidArgumentError } from "@commander-js/extra-typings";
import { commandName, COMMANDS } from "./commands.ts";
import { present, withExamples } from "./help.ts";
import { printError, readable } from "./output.ts";
import { VERSION } from "./version.ts";

const ENVIRONMENT = `
Environment:
  NEON_REPO_DIR  the state directory (an absolute path) instead of ./.neon
  NO_COLOR       no colours`;

/** The program with the one command that `args` ask for, or with the list of all. */
export async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = withExamples(
    new Command("neon")
      .description("Local Neon: PostgreSQL on storage that branches")
      .usage("<command> [options]")
      .version(VERSION, "-V, --version", "show the version")
      .option("--verbose", "show where an error came from")
      .addHelpText("after", ENVIRONMENT),
    ["neon init && neon start", "a new local Neon in .neon"],
    ["neon tenant create --set-default", "a cluster with the branch main"],
    ["neon endpoint start main", "PostgreSQL on it"],
    ["neon timeline branch --branch-name dev", "a branch of main as it is now"],
    ["neon endpoint start dev", "PostgreSQL on the branch"],
    ["neon timeline branch --help", "every command has help"],
  );
  const first = args.find((arg) => !arg.startsWith("-"));
  const wanted = first === undefined ? undefined : COMMANDS[first];
  if (wanted !== undefined) {
    program.addCommand((await wanted.load()).command() as Command);
  } else {
    for (const [name, { summary, group }] of Object.entries(COMMANDS)) {
      program.addCommand(new Command(name).description(summary).helpGroup(group));
    }
  }
  present(program as Parameters<typeof present>[0], args);
  return program as unknown as Command;
}

/** Takes --verbose out wherever it stands, and turns `help X Y` into `X Y --help`. */
function normalise(given: readonly string[]): string[] {
  const args = given.filter((arg) => arg !== "--verbose");
  const [first, ...rest] = args[0] === "help" ? [...args.slice(1), "--help"] : args;
  return first === undefined ? [] : [commandName(first), ...rest];
}

/** Whether commander would show the program's help for a command that does not exist. */
function isUnknown(args: readonly string[]): boolean {
  const first = args[0];
  return first !== undefined && !first.startsWith("-") && !(first in COMMANDS);
}

/** Runs a command line; sets the exit code for wrong usage. Throws what the command throws. */
export async function run(given: readonly string[]): Promise<void> {
  const args = normalise(given);
  const program = await buildProgram(args);
  try {
    await program.parseAsync(isUnknown(args) ? [args[0]!] : args, { from: "user" });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    // Commander prints what it finds itself; this one was found by the command that ran
    if (thrown instanceof InvalidArgumentError) printError(readable(thrown.message, args));
    // Help and version are not failures; everything else that commander finds is wrong usage.
    Deno.exitCode = thrown.exitCode === 0 ? 0 : 2;
  }
}
