/** The `neon` command; program.ts is what it does, commands.ts lists the commands. */
import { VERSION } from "./version.ts";

/** Runs one command; returns its exit code. */
export async function runCommand(args: string[]): Promise<number> {
  Deno.exitCode = 0;
  await import("./program.ts").catch(cannotLoad)
    .then(({ run }) => run(args))
    .catch((thrown) => fail(thrown, args));
  return Deno.exitCode;
}

/** The program comes without its libraries, which Deno fetches the first time. */
async function cannotLoad(thrown: unknown): Promise<never> {
  const { loadFailure } = await import("./error_text.ts");
  throw new Error(loadFailure(thrown), { cause: thrown });
}

async function fail(thrown: unknown, args: string[]): Promise<void> {
  const { printError, printHint } = await import("./output.ts");
  const { errorText } = await import("./error_text.ts");
  printError(errorText(thrown, args));
  if (args.includes("--verbose") && thrown instanceof Error) printHint(thrown.stack ?? "");
  Deno.exitCode = 1;
}

if (import.meta.main) {
  if (Deno.args.length === 1 && (Deno.args[0] === "--version" || Deno.args[0] === "-V")) {
    console.log(VERSION);
  } else if (Deno.args[0] === "__complete") {
    const { completionLines } = await import("./completion.ts");
    for (const line of await completionLines(Deno.args.slice(1))) console.log(line);
  } else {
    Deno.exit(await runCommand(Deno.args)); // open keep-alive connections would hold us for a while
  }
}
