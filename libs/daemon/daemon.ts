/**
 * The life of a daemon: `main.ts -D DIR`.
 *
 * DIR holds NAME.toml, its settings, and NAME.pid, which is locked while it lives. SIGTERM and
 * SIGINT stop it in an orderly way, SIGQUIT at once. It exits with 0 after a stop that was asked
 * for, with 1 if it cannot start or stop, with 2 for wrong arguments.
 */
import { join, resolve } from "node:path";
import type { z } from "zod";
import { messageOf } from "../utils/errors.ts";
import { configureLogging, logger, type LogLevel } from "../utils/log.ts";
import { acquirePidFile } from "../utils/pid_file.ts";
import { readConfigFile } from "./config_file.ts";
import { collectInQuietTimes } from "./quiet.ts";

/** A daemon that serves. */
interface RunningDaemon {
  /** Ends everything in order. */
  stop(): Promise<void>;
  /** What SIGQUIT does; without it the process just ends. */
  stopAtOnce?(): Promise<void>;
  /** Gives back what it made for its last work; called after some seconds without any. */
  quiet?(): void;
  /** Forgets what it keeps only to be faster; called after a minute without work. */
  rest?(): void;
}

/** One kind of daemon. */
interface DaemonKind<C> {
  /** Names its files and its lines in the log, for example "pageserver". */
  readonly name: string;
  readonly config: z.ZodType<C>;
  /** Called when `pidPath` is locked. */
  start(directory: string, config: C, pidPath: string): Promise<RunningDaemon> | RunningDaemon;
}

/** Starts the daemon that the command line asks for, and ends the process when it is told to. */
export async function runDaemon<C extends { readonly log_level: LogLevel }>(
  kind: DaemonKind<C>,
): Promise<void> {
  const [flag, given, ...rest] = Deno.args;
  if (flag !== "-D" || given === undefined || rest.length > 0) {
    console.error("usage: main.ts -D DIRECTORY");
    Deno.exit(2);
  }
  const directory = resolve(given);
  try {
    const config = readConfigFile(join(directory, `${kind.name}.toml`), kind.config);
    configureLogging(config.log_level);
    const pidPath = join(directory, `${kind.name}.pid`);
    const pidFile = acquirePidFile(pidPath);
    const daemon = await kind.start(directory, config, pidPath);
    stopOnSignals(kind.name, daemon, () => pidFile.markStopped());
    collectInQuietTimes(daemon);
  } catch (thrown) {
    console.error(`error: ${messageOf(thrown)}`);
    Deno.exit(1);
  }
}

function stopOnSignals(name: string, daemon: RunningDaemon, markStopped: () => void): void {
  const log = logger(name);
  let stopping = false;
  const end = async (how: string, stop: () => Promise<void>) => {
    if (stopping) return;
    stopping = true;
    log.info("stopping, {how}", { how });
    try {
      await stop();
      markStopped();
    } catch (thrown) {
      log.error("stopping failed: {why}", { why: messageOf(thrown) });
      Deno.exit(1);
    }
    Deno.exit(0);
  };
  const orderly = () => end("fast", () => daemon.stop());
  Deno.addSignalListener("SIGTERM", orderly);
  Deno.addSignalListener("SIGINT", orderly);
  Deno.addSignalListener("SIGQUIT", () => {
    if (daemon.stopAtOnce === undefined) Deno.exit(0);
    return end("immediate", () => daemon.stopAtOnce!());
  });
}
