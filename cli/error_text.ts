/** What a command that has failed says, with the way out that only the command line knows. */
import process from "node:process";
import { styleText } from "node:util";
import { messageOf } from "../libs/utils/errors.ts";
import { describeOsError } from "../libs/utils/os_errors.ts";
import { fetchFailure } from "./control_plane/fetch_failure.ts";
import { printHint, readable } from "./output.ts";

/** What helps beyond what the message says. */
function wayOut(why: string): string {
  if (why.startsWith("Cannot authenticate: no known key")) {
    return "; the public keys in .neon must have one that fits its private key, and daemons that " +
      'run read them at "neon stop" and "neon start"';
  }
  if (/^Cannot win an election .*refused/s.test(why)) {
    return '; "neon start" starts safekeepers that are down';
  }
  const isDown = /Cannot reach the (pageserver|compute host|safekeeper) at/.test(why);
  return isDown && !why.includes('"neon start"') ? '; "neon start" starts it' : "";
}

/** What is said when the program itself cannot be loaded. */
export function loadFailure(thrown: unknown): string {
  return `Cannot load the program: ${fetchFailure(messageOf(thrown))}`;
}

/** The line for what was thrown; `args` are the words of the command line that it may repeat. */
export function errorText(thrown: unknown, args: readonly string[]): string {
  const why = describeOsError(thrown) ?? messageOf(thrown);
  return readable(why + wayOut(why), args);
}

/** Prints an error: one line (and the log it quotes), marked as such. */
export function printError(message: string): void {
  const mark = styleText("red", "error:", { stream: process.stderr });
  printHint(`${mark} ${message}`);
}
