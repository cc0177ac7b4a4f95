/**
 * The command line as commander has it: with help, and with an answer to whatever is wrong. One
 * that is plainly right is run without it (run.ts).
 */
import * as commander from "@commander-js/extra-typings";
import { builtBy, type Definition } from "./command.ts";
import { commandOf, COMMANDS } from "./commands.ts";
import { present, withExamples } from "./help.ts";
import { VERSION } from "./version.ts";

const ENVIRONMENT = `
Environment:
  NEON_REPO_DIR  the state directory (an absolute path) instead of ./.neon
  NO_COLOR       no colours`;

/** The program with the one command that `args` ask for, or with the list of all. */
export async function buildProgram(args: readonly string[]): Promise<commander.Command> {
  const program = withExamples(
    new commander.Command("neon")
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
  const wanted = commandOf(first);
  if (wanted !== undefined) {
    const definition = (await wanted.load()).command() as Definition;
    program.addCommand(builtBy(commander, definition) as commander.Command);
  } else {
    for (const [name, { summary, group }] of Object.entries(COMMANDS)) {
      program.addCommand(new commander.Command(name).description(summary).helpGroup(group));
    }
  }
  present(program as Parameters<typeof present>[0], args);
  return program as unknown as commander.Command;
}

/** Whether commander would show the program's help for a command that does not exist. */
function isUnknown(args: readonly string[]): boolean {
  const first = args[0];
  return first !== undefined && !first.startsWith("-") && commandOf(first) === undefined;
}

/** Runs a command line; the exit code that commander wants, undefined when all is well. */
export async function runByCommander(args: readonly string[]): Promise<number | undefined> {
  const program = await buildProgram(args);
  try {
    await program.parseAsync(isUnknown(args) ? [args[0]!] : args, { from: "user" });
    return undefined;
  } catch (thrown) {
    if (thrown instanceof commander.CommanderError) return thrown.exitCode;
    throw thrown;
  }
}
