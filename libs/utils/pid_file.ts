/**
 * Pid files. The daemon that owns a directory holds an exclusive lock (flock) on its pid file for
 * as long as it lives, so "is it running" is a question about the lock, never about the number: a
 * stale file after a crash or a reboot is unlocked, whoever has that pid now.
 *
 *     1234
 *     stopped
 *
 * The second line is there once the daemon has ended in an orderly way. It gives up the lock only
 * by ending, so whoever sees the lock free may remove or reuse what the process wrote.
 */
import { Conflict } from "./errors.ts";
import { ifThere } from "./if_there.ts";

/** The live owner's hold on its pid file. */
interface PidFile extends Disposable {
  /** Notes that the process ends because it was told to. */
  markStopped(): void;
}

/** Tries for the lock, and the pause between two: livePid() holds it for a moment when it looks. */
const TRIES_MAX = 20;
const PAUSE_MS = 5;

function tryLock(file: Deno.FsFile): boolean {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 1; tries < TRIES_MAX; tries++) {
    if (file.tryLockSync(true)) return true;
    Atomics.wait(never, 0, 0, PAUSE_MS);
  }
  return file.tryLockSync(true);
}

/** Locks `path` and writes our pid. Throws Conflict naming the pid of the holder. */
export function acquirePidFile(path: string): PidFile {
  const file = Deno.openSync(path, { read: true, write: true, create: true });
  if (!tryLock(file)) {
    file.close();
    const holder = Deno.readTextFileSync(path).split("\n")[0];
    throw new Conflict(`Cannot start on "${path}": process ${holder} is running on it`);
  }
  file.truncateSync(0);
  file.writeSync(new TextEncoder().encode(`${Deno.pid}\n`));
  return {
    markStopped() {
      file.writeSync(new TextEncoder().encode("stopped\n"));
    },
    [Symbol.dispose]() {
      file.close();
    },
  };
}

/** The pid of the live process that holds `path`, or undefined if none does. */
export function livePid(path: string): number | undefined {
  const file = ifThere(() => Deno.openSync(path, { read: true }));
  if (file === undefined) return undefined;
  try {
    if (file.tryLockSync(false)) return undefined;
    const pid = Number.parseInt(Deno.readTextFileSync(path), 10);
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } finally {
    file.close();
  }
}
