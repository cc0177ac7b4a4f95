/**
 * The command line as a whole: finds the command that is meant, loads it alone, and runs it.
 *
 * Exit codes: 0 done, 1 failed (one line on standard error says why and what to do), 2 wrong usage.
 */
import { type Definition, InvalidArgumentError } from "./command.ts";
import { commandName, commandOf } from "./commands.ts";
import { quickParse } from "./quick_parse.ts";

/** Takes --verbose out wherever it stands, and turns `help X Y` into `X Y --help`. */
function normalise(given: readonly string[]): string[] {
  const args = given.filter((arg) => arg !== "--verbose");
  const [first, ...rest] = args[0] === "help" ? [...args.slice(1), "--help"] : args;
  return first === undefined ? [] : [commandName(first), ...rest];
}

/** A part of the program. It comes without its libraries, which Deno fetches the first time. */
async function loaded<T>(loading: Promise<T>): Promise<T> {
  try {
    return await loading;
  } catch (thrown) {
    const { loadFailure } = await import("./error_text.ts");
    throw new Error(loadFailure(thrown), { cause: thrown });
  }
}

/** What runs a command line that is plainly right. */
async function quickRun(args: readonly string[]): Promise<(() => unknown) | undefined> {
  const wanted = commandOf(args[0]);
  if (wanted === undefined) return undefined;
  const { command } = await loaded(wanted.load());
  return quickParse(command() as Definition, args.slice(1));
}

/** Runs a command line; sets the exit code for wrong usage. Throws what the command throws. */
export async function run(given: readonly string[]): Promise<void> {
  const args = normalise(given);
  try {
    const quick = await quickRun(args);
    if (quick !== undefined) return void await quick();
    const { runByCommander } = await loaded(import("./program.ts"));
    const code = await runByCommander(args);
    // Help and version are not failures; everything else that commander finds is wrong usage.
    if (code !== undefined) Deno.exitCode = code === 0 ? 0 : 2;
  } catch (thrown) {
    if (!(thrown instanceof InvalidArgumentError)) throw thrown;
    // Commander prints what it finds itself; this one was found by the command that ran
    const { printError } = await import("./error_text.ts");
    const { readable } = await import("./output.ts");
    printError(readable(thrown.message, args));
    Deno.exitCode = 2;
  }
}
