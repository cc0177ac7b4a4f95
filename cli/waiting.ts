/**
 * What is said while something takes long, on standard error: on a terminal a line that shows the
 * seconds or the bytes, elsewhere (a log, a pipe) a plain line each.
 */
import type { Progress } from "./control_plane/progress.ts";
import { endPassing, printHint, showPassing } from "./output.ts";

/** When a wait is long enough to be shown on a terminal. */
const SHOWN_AFTER_MS = 1000;
/** When it is worth a line of a log. */
const LOGGED_AFTER_MS = 5000;
/** How often the seconds are looked at. */
const TICK_MS = 250;

/** When bytes were shown last: as long as they come, they say more than the seconds. */
let bytesShownAt = -Infinity;

/**
 * Does `work`; while it takes long, says what is waited for and since when. A function is asked
 * each time. (The first timer of a process costs it 7 ms of CPU, longer than many a command waits.
 * So until there is something to be shown the alarm is a signal's, which costs half a millisecond.)
 */
export async function waitingFor<T>(
  what: string | (() => string),
  work: Promise<T>,
  shownAfterMs = SHOWN_AFTER_MS,
): Promise<T> {
  const started = performance.now();
  const whatNow = () => typeof what === "string" ? what : what();
  const show = () => {
    const now = performance.now();
    const waited = now - started;
    if (waited < shownAfterMs || now - bytesShownAt < SHOWN_AFTER_MS) return;
    showPassing(`${whatNow()} ... ${Math.floor(waited / 1000)} s`);
  };
  const isTerminal = Deno.stderr.isTerminal();
  const alarm = AbortSignal.timeout(isTerminal ? shownAfterMs + 1 : LOGGED_AFTER_MS);
  let ticks: ReturnType<typeof setInterval> | undefined;
  const onAlarm = () => {
    if (isTerminal) {
      show();
      ticks = setInterval(show, TICK_MS);
    } else printHint(`${whatNow()} ...`);
  };
  alarm.addEventListener("abort", onAlarm, { once: true });
  try {
    return await work;
  } finally {
    alarm.removeEventListener("abort", onAlarm);
    if (ticks !== undefined) clearInterval(ticks); // this, too, loads the timers
    endPassing();
  }
}

/** Progress of downloads and of what is done once. */
export function terminalProgress(): Progress {
  let announced = "";
  return {
    bytes(what, received, total) {
      const megabytes = (count: number) => (count / 1e6).toFixed(1);
      const of = total > 0 ? ` of ${megabytes(total)}` : "";
      bytesShownAt = performance.now();
      if (Deno.stderr.isTerminal()) showPassing(`${what}: ${megabytes(received)}${of} MB`);
      else if (announced !== what) printHint(`${what} ...`);
      announced = what;
    },
    step: (what) => printHint(`${what} ...`),
    done: printHint,
  };
}
