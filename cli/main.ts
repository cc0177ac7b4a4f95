/** The `neon` command; run.ts is what it does, commands.ts lists the commands. */
import { VERSION } from "./version.ts";

/** Runs one command; returns its exit code. */
export async function runCommand(args: string[]): Promise<number> {
  Deno.exitCode = 0;
  const { run } = await import("./run.ts");
  await run(args).catch((thrown) => fail(thrown, args));
  return Deno.exitCode;
}

async function fail(thrown: unknown, args: string[]): Promise<void> {
  const { errorText, printError } = await import("./error_text.ts");
  const { printHint } = await import("./output.ts");
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
