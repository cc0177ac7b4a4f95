/** The `neon` command; program.ts is what it does, commands.ts lists the commands. */
import { VERSION } from "./version.ts";

async function fail(thrown: unknown): Promise<void> {
  const { printError, printHint } = await import("./output.ts");
  printError(thrown instanceof Error ? thrown.message : String(thrown));
  if (Deno.args.includes("--verbose") && thrown instanceof Error) printHint(thrown.stack ?? "");
  Deno.exitCode = 1;
}

if (import.meta.main) {
  if (Deno.args.length === 1 && (Deno.args[0] === "--version" || Deno.args[0] === "-V")) {
    console.log(VERSION);
  } else if (Deno.args[0] === "__complete") {
    const { completionLines } = await import("./completion.ts");
    for (const line of await completionLines(Deno.args.slice(1))) console.log(line);
  } else {
    const { run } = await import("./program.ts");
    await run(Deno.args).catch(fail);
    Deno.exit(Deno.exitCode); // open keep-alive connections would hold us for a while
  }
}
