/**
 * Starts and stops daemons.
 *
 * A daemon is spawned detached (its own session, so that closing the terminal does not end it) with
 * its output appended to its log file, and is ready when its HTTP status answers. Whether it runs
 * is asked of its pid file, which the live process holds locked, so stale files after a crash or a
 * reboot mean nothing. Two commands that start the same daemon at once queue on a lock of its
 * directory.
 */
import { join } from "node:path";
import { parseAddress } from "../../libs/utils/address.ts";
import { messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { describeOsError } from "../../libs/utils/os_errors.ts";
import { livePid } from "../../libs/utils/pid_file.ts";
import { type Looks, poll } from "../../libs/utils/polling.ts";
import { daemonEnvironment, type DaemonWork, MEMORY_FLAGS } from "./daemon_environment.ts";
import { isPortFree } from "./endpoint_records.ts";
import { portHolder } from "./port_holder.ts";
import { withDirectoryLock } from "./repo_dir.ts";

/** How long a daemon may take from spawn to its first status answer, by default. */
export const START_TIMEOUT_MS = 30_000;
/** How long a daemon may take to stop after the signal. */
const STOP_TIMEOUT_MS = 30_000;
/** How long a port of a daemon that just ended may stay taken. */
const PORT_WAIT_MS = 300;
/** First and longest pause between two looks while waiting. */
const PAUSE_MS = [5, 50] as const;
/** How long a daemon may take to answer that it serves. */
const ANSWER_MS_MAX = 2000;
/** How much of a log to show when a daemon did not start. */
const LOG_TAIL_LINES = 12;
const LOG_TAIL_BYTES = 8192;

/** How to stop: fast writes out what is in memory, immediate leaves that to recovery. */
export type StopMode = "fast" | "immediate";

/**
 * Signals of each way to end a daemon, each tried when the one before had no effect. A daemon that
 * is killed leaves what it started running: so the compute host is replaced under running
 * endpoints.
 */
const SIGNALS: Record<StopMode | "kill", Deno.Signal[]> = {
  fast: ["SIGTERM", "SIGQUIT", "SIGKILL"],
  immediate: ["SIGQUIT", "SIGKILL"],
  kill: ["SIGKILL"],
};

/** One daemon, as the supervisor sees it. */
export interface Daemon {
  /** For messages and for the line "<name> started, pid: N", for example "safekeeper 1". */
  name: string;
  directory: string;
  pidFile: string;
  logFile: string;
  /** Addresses it listens on, as host:port. */
  listen: string[];
  /** Answers 200 once it serves. */
  statusUrl: string;
  /** Absolute path of its main.ts. */
  main: string;
  permissions: string[];
  /** Variables of our environment that it is given, too. */
  environment?: readonly string[];
  /** What its event loop mostly has to do; messages unless told otherwise. */
  work?: DaemonWork;
}

/** What a start did. */
export interface Started {
  pid: number;
  /** It was running before. */
  already: boolean;
}

function looksFor(limitMs: number): Looks {
  return { pauseMs: PAUSE_MS, limitMs };
}

/** Whether the daemon's HTTP status answers 200 in time. */
export async function isServing(daemon: Daemon, timeoutMs = ANSWER_MS_MAX): Promise<boolean> {
  try {
    const response = await fetch(daemon.statusUrl, { signal: AbortSignal.timeout(timeoutMs) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/** The last lines of a log file, from byte `from` on. */
function logTail(path: string, from: number): string {
  try {
    using file = Deno.openSync(path, { read: true });
    const size = file.statSync().size;
    const at = Math.max(from, size - LOG_TAIL_BYTES);
    file.seekSync(at, Deno.SeekMode.Start);
    const bytes = new Uint8Array(Math.max(0, size - at));
    const count = file.readSync(bytes) ?? 0;
    const lines = new TextDecoder().decode(bytes.subarray(0, count)).trimEnd().split("\n");
    return lines.slice(-LOG_TAIL_LINES).join("\n");
  } catch {
    return "";
  }
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

/**
 * Which of the addresses of a daemon that does not run are taken. A daemon that was just killed
 * gives up its lock a moment before its ports, hence the short wait.
 */
export async function takenAddresses(daemon: Daemon): Promise<string[]> {
  const taken: string[] = [];
  for (const address of daemon.listen) {
    const { hostname, port } = parseAddress(address);
    const free = await poll(looksFor(PORT_WAIT_MS), () => isPortFree(hostname, port) || undefined);
    if (free !== true) taken.push(address);
  }
  return taken;
}

/** That addresses are taken, of `whom`: who has the first, and what can be done. */
export function portConflict(whom: string, taken: readonly string[]): Unavailable {
  const { port } = parseAddress(taken[0]!);
  const more = taken.length === 1 ? "" : ` (and ${taken.length - 1} more of its ports are taken)`;
  return new Unavailable(
    `Cannot start ${whom}: ${taken[0]} is in use by ${portHolder(port)}${more}; stop that, or ` +
      `change the port${taken.length === 1 ? "" : "s"} in .neon/config`,
  );
}

/** Absolute path of a file of this program, given from its root. */
export function programFile(path: string): string {
  return join(import.meta.dirname!, "../..", path);
}

function spawn(daemon: Daemon): Deno.ChildProcess {
  const child = new Deno.Command("/bin/sh", {
    // The shell only points the output at the log and becomes the daemon: a pipe would end with us.
    args: [
      "-c",
      'log=$1; shift; exec "$@" >>"$log" 2>&1',
      "sh",
      daemon.logFile,
      Deno.execPath(),
      "run",
      "--quiet",
      `--config=${programFile("deno.json")}`,
      MEMORY_FLAGS,
      ...daemon.permissions,
      daemon.main,
      "-D",
      daemon.directory,
    ],
    cwd: daemon.directory,
    clearEnv: true,
    env: daemonEnvironment(daemon.environment ?? [], daemon.work),
    detached: true,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  child.unref();
  return child;
}

/** Starts a daemon and waits until it serves; does nothing if it runs. */
export function startDaemon(daemon: Daemon, timeoutMs = START_TIMEOUT_MS): Promise<Started> {
  return withDirectoryLock(daemon.directory, async () => {
    const running = await alreadyRunning(daemon, timeoutMs);
    if (running !== undefined) return running;
    const taken = await takenAddresses(daemon);
    if (taken.length > 0) {
      const meanwhile = await alreadyRunning(daemon, timeoutMs);
      if (meanwhile !== undefined) return meanwhile;
      throw portConflict(daemon.name, taken);
    }
    checkLog(daemon);
    const logStart = sizeOf(daemon.logFile);
    const child = spawn(daemon);
    let exit: Deno.CommandStatus | undefined;
    child.status.then((status) => exit = status);
    const ready = await poll(looksFor(timeoutMs), async () => {
      if (exit !== undefined) return false;
      return await isServing(daemon) ? true : undefined;
    });
    const pid = livePid(daemon.pidFile) ?? child.pid;
    if (ready === true) return { pid, already: pid !== child.pid };
    if (pid !== child.pid) {
      await waitUntilServing(daemon, timeoutMs);
      return { pid, already: true };
    }
    const log = logTail(daemon.logFile, logStart);
    const refusal = /^error: (Cannot .*)$/.exec(log.split("\n").at(-1)!)?.[1];
    if (ready === false && refusal !== undefined) {
      const itself = refusal.startsWith("Cannot start");
      throw new Unavailable(itself ? refusal : `Cannot start ${daemon.name}: ${refusal}`);
    }
    if (ready === undefined) child.kill("SIGKILL");
    const how = ready === undefined
      ? `does not answer at ${daemon.statusUrl} after ${timeoutMs / 1000} s`
      : `it ended with ${exit!.signal ?? `exit code ${exit!.code}`}`;
    const says = log === "" ? "says nothing more" : `says:\n${log}`;
    throw new Unavailable(
      `Cannot start ${daemon.name}: ${how}; the end of "${daemon.logFile}" ${says}`,
    );
  }, START_TIMEOUT_MS + timeoutMs); // another command may be starting it
}

/** Throws Unavailable if the daemon could not write its log, where it would say what is wrong. */
function checkLog({ name, logFile }: Daemon): void {
  try {
    Deno.openSync(logFile, { append: true, create: true }).close();
  } catch (thrown) {
    throw new Unavailable(`Cannot start ${name}: ${describeOsError(thrown) ?? messageOf(thrown)}`);
  }
}

/**
 * The daemon that runs, once it serves. Also after a start: an interrupted command may have left
 * one on its way, which has locked its pid file a moment before ours.
 */
async function alreadyRunning(daemon: Daemon, timeoutMs: number): Promise<Started | undefined> {
  const pid = livePid(daemon.pidFile);
  if (pid === undefined) return undefined;
  await waitUntilServing(daemon, timeoutMs);
  return { pid, already: true };
}

async function waitUntilServing(daemon: Daemon, timeoutMs: number): Promise<void> {
  const ready = await poll(
    looksFor(timeoutMs),
    async () => await isServing(daemon) ? true : undefined,
  );
  if (ready === true) return;
  throw new TimedOut(
    `Cannot use ${daemon.name}: it runs, but does not answer at ${daemon.statusUrl}`,
  );
}

/** The pid of the running daemon, or undefined. */
export function daemonPid(daemon: Daemon): number | undefined {
  try {
    return livePid(daemon.pidFile);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotADirectory) return undefined;
    throw thrown;
  }
}

/**
 * Stops a daemon and waits until it is gone; returns its pid, or undefined if it was not running.
 * One that ignores a fast stop for the time limit is stopped immediately, then killed.
 */
export async function stopDaemon(
  daemon: Daemon,
  mode: StopMode | "kill",
): Promise<number | undefined> {
  const pid = daemonPid(daemon);
  if (pid === undefined) return undefined;
  for (const signal of SIGNALS[mode]) {
    try {
      Deno.kill(pid, signal);
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    }
    const gone = await poll(
      looksFor(STOP_TIMEOUT_MS),
      () => daemonPid(daemon) !== pid || undefined,
    );
    if (gone === true) return pid;
  }
  throw new TimedOut(`Cannot stop ${daemon.name}: process ${pid} is still there after SIGKILL`);
}
