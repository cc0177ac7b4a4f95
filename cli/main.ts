/** The `neon` command; program.ts is what it does, commands.ts lists the commands. */
import { VERSION } from "./version.ts";

/** Runs one command; returns its exit code. */
export async function runCommand(args: string[]): Promise<number> {
  Deno.exitCode = 0;
  const { run } = await import("./program.ts");
  await run(args).catch((thrown) => fail(thrown, args));
  return Deno.exitCode;
}

async function fail(thrown: unknown, args: string[]): Promise<void> {
  const { printError, printHint, readable } = await import("./output.ts");
  const { messageOf } = await import("../libs/utils/errors.ts");
  const { describeOsError } = await import("../libs/utils/os_errors.ts");
  const why = describeOsError(thrown) ?? messageOf(thrown);
  const isDown = /Cannot reach the (pageserver|compute host|safekeeper) at/.test(why);
  const isRefused = why.startsWith("Cannot authenticate: no known key");
  const wayOut = isDown && !why.includes('"neon start"')
    ? '; "neon start" starts it'
    : isRefused
    ? "; the public keys in .neon must have one that fits its private key, and daemons that " +
      'run read them at "neon stop" and "neon start"'
    : "";
  printError(readable(why + wayOut, args));
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
