/**
 * PostgreSQL's own crash recovery of a recording, timed by what it says itself: from "redo starts
 * at" to "redo done at" in its log, which leaves out its start, the checkpoint at the end and
 * everything else.
 */
import { join } from "node:path";
import { commandUser, type HostUser } from "../../cli/control_plane/host_user.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { copyTree, type Recording } from "./recording.ts";

const DONE =
  /^([\d.]+) LOG: {2}redo done at (\S+) system usage: CPU: user: (\S+) s, system: (\S+) s/m;
const READY = "database system is ready to accept connections";

/** One recovery. */
interface StockRecovery {
  /** The cluster's data directory: recovered, checkpointed and shut down. */
  readonly dataDir: string;
  readonly seconds: number;
  /** The end of the last record that was redone. */
  readonly endLsn: Lsn;
  /** Of the process that redoes, user and system. */
  readonly cpuSeconds: number;
}

/** How to run it. */
export interface StockOptions {
  readonly binDir: string;
  readonly user: HostUser | undefined;
  readonly port: number;
  readonly settings: Readonly<Record<string, string>>;
  /** Where the cluster is put. */
  readonly directory: string;
}

/** Puts the recording together as the crash left it, but for pages that it had written since. */
function restore(recording: Recording, directory: string): string {
  const dataDir = join(directory, "recovered");
  ifThere(() => Deno.removeSync(dataDir, { recursive: true })); // of a run that was stopped
  copyTree(recording.baseDir, dataDir);
  Deno.chmodSync(dataDir, 0o700);
  Deno.removeSync(join(dataDir, "pg_wal"), { recursive: true });
  copyTree(join(recording.crashedDir, "pg_wal"), join(dataDir, "pg_wal"));
  Deno.removeSync(join(dataDir, "global", "pg_control"));
  copyTree(
    join(recording.crashedDir, "global", "pg_control"),
    join(dataDir, "global", "pg_control"),
  );
  return dataDir;
}

/** Recovers. The caller removes the cluster. */
export async function recoverStock(
  recording: Recording,
  options: StockOptions,
): Promise<StockRecovery> {
  const dataDir = restore(recording, options.directory);
  const settings = {
    port: String(options.port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    fsync: "off",
    log_line_prefix: "%n ",
    logging_collector: "off",
    autovacuum: "off",
    ...options.settings,
  };
  const process = new Deno.Command(join(options.binDir, "postgres"), {
    args: [
      "-D",
      dataDir,
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ],
    env: { LC_ALL: "C" },
    cwd: dataDir,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    ...commandUser(options.user),
  }).spawn();
  let log = "";
  for await (const text of process.stderr.pipeThrough(new TextDecoderStream())) {
    log += text;
    if (!log.includes(READY)) continue;
    if (log.includes("database system is shut down")) continue;
    process.kill("SIGINT");
  }
  await process.status;
  return { dataDir, ...parseLog(log) };
}

function parseLog(log: string): Omit<StockRecovery, "dataDir"> {
  const start = /^([\d.]+) LOG: {2}redo starts at/m.exec(log);
  const done = DONE.exec(log);
  if (start === null || done === null || !log.includes(READY)) {
    throw new Error(`PostgreSQL did not recover:\n${log}`);
  }
  return {
    seconds: Number(done[1]) - Number(start[1]),
    endLsn: parseLsn(done[2]!),
    cpuSeconds: Number(done[3]) + Number(done[4]),
  };
}
