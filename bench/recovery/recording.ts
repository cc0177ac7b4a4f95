/**
 * A crash to recover from: the files of a cluster at a checkpoint, and all WAL since.
 *
 *   DIR/base        the data directory after a clean shutdown, without its WAL
 *   DIR/crashed     pg_wal and global/pg_control of the same cluster, loaded and then killed
 *   DIR/WORKLOAD    what it was loaded with; written last, so a recording with it is whole
 *
 * The files in DIR/base are at the checkpoint, all of them: a server that recovers from them has to
 * redo every record, which would not be so for the files of the crashed server.
 */
import { join } from "node:path";
import type { HostUser } from "../../cli/control_plane/host_user.ts";
import { decodeControlFile } from "../../libs/postgres/control_file.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { parseLsn } from "../../libs/utils/lsn.ts";
import { StockPostgres } from "../stock_postgres.ts";
import type { Workload } from "./workloads.ts";

const SESSIONS = 2;

/** Everything is redone, and no record carries a page image that the load did not ask for. */
const SETTINGS: Readonly<Record<string, string>> = {
  full_page_writes: "off",
  wal_compression: "off",
  wal_consistency_checking: "",
  wal_level: "replica",
  checkpoint_timeout: "1d",
  max_wal_size: "64GB",
  min_wal_size: "1GB",
  fsync: "off",
  synchronous_commit: "off",
  autovacuum: "off",
  shared_buffers: "512MB",
};

/** A recording on disk. */
export interface Recording {
  readonly workload: string;
  readonly baseDir: string;
  readonly crashedDir: string;
  /** The checkpoint that recovery begins at. */
  readonly startLsn: Lsn;
}

/** Where and with what to record. */
interface RecordingOptions {
  readonly directory: string;
  readonly binDir: string;
  readonly user: HostUser | undefined;
  readonly port: number;
  readonly walBytes: number;
}

/** The recording in `directory`, made if it is not there. */
export async function record(workload: Workload, options: RecordingOptions): Promise<Recording> {
  const { directory } = options;
  const done = ifThere(() => Deno.readTextFileSync(join(directory, "WORKLOAD")));
  if (done !== workload.name) await make(workload, options);
  const baseDir = join(directory, "base");
  const control = decodeControlFile(Deno.readFileSync(join(baseDir, "global", "pg_control")));
  return {
    workload: workload.name,
    baseDir,
    crashedDir: join(directory, "crashed"),
    startLsn: control.checkPointLsn,
  };
}

async function make(workload: Workload, options: RecordingOptions): Promise<void> {
  const { directory, binDir, user, port, walBytes } = options;
  Deno.mkdirSync(directory, { recursive: true });
  await using stock = await StockPostgres.start(binDir, user, directory, port, SETTINGS);
  await session(stock, async (client) => {
    for (const sql of workload.prepare) await client.query(sql);
  });
  await stock.restartAfter(() => copyBase(stock.dataDir, directory));
  await session(stock, async (client) => {
    const start = await currentLsn(client);
    const loads = Array.from(
      { length: SESSIONS },
      (_, i) => load(stock, workload, i, start, walBytes),
    );
    await Promise.all(loads);
  });
  await stock.crash();
  copyCrashed(stock.dataDir, directory);
  Deno.writeTextFileSync(join(directory, "WORKLOAD"), workload.name);
}

async function load(
  stock: StockPostgres,
  workload: Workload,
  index: number,
  start: Lsn,
  walBytes: number,
): Promise<void> {
  await session(stock, async (client) => {
    for (let round = 0; await currentLsn(client) - start < walBytes; round++) {
      for (const sql of workload.step(index, round)) await client.query(sql);
    }
    await client.query("SET synchronous_commit = on");
    await client.query("SELECT txid_current()"); // all before it is written
  });
}

async function session(
  stock: StockPostgres,
  use: (client: PgClient) => Promise<void>,
): Promise<void> {
  const client = await stock.connect();
  try {
    await use(client);
  } finally {
    client.close();
  }
}

async function currentLsn(client: PgClient): Promise<Lsn> {
  return parseLsn((await client.query("SELECT pg_current_wal_insert_lsn()")).rows[0]![0]!);
}

/** Copies a data directory to `to`; its owner stays. */
export function copyTree(from: string, to: string): void {
  const { success, stderr } = new Deno.Command("cp", { args: ["-a", from, to] }).outputSync();
  if (!success) throw new Error(`Cannot copy: ${new TextDecoder().decode(stderr)}`);
}

function copyBase(dataDir: string, directory: string): void {
  const base = join(directory, "base");
  copyTree(dataDir, base);
  for (const entry of [...Deno.readDirSync(join(base, "pg_wal"))]) {
    if (entry.isFile) Deno.removeSync(join(base, "pg_wal", entry.name));
  }
}

function copyCrashed(dataDir: string, directory: string): void {
  const crashed = join(directory, "crashed");
  Deno.mkdirSync(join(crashed, "global"), { recursive: true });
  copyTree(join(dataDir, "pg_wal"), join(crashed, "pg_wal"));
  copyTree(join(dataDir, "global", "pg_control"), join(crashed, "global", "pg_control"));
}
