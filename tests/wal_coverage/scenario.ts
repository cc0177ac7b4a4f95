/**
 * All workloads on one cluster, stage after stage, each with its own settings and a restart before
 * it. What comes out is the cluster as it was before, and the WAL of everything since.
 */
import { join } from "node:path";
import { pgVersion } from "../../libs/postgres/versions.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import { ginLaterWorkload, ginWorkload } from "../redo_judge/gin_workload.ts";
import { laterSearchTreeWorkload, searchTreeWorkload } from "../redo_judge/gist_workload.ts";
import { indexWorkload, laterWorkload } from "../redo_judge/hash_workload.ts";
import { tableWorkload, type Workload } from "../redo_judge/judge_run.ts";
import { StockPostgres } from "../redo_judge/stock_postgres.ts";
import { all, logicalWorkload } from "../redo_judge/workload.ts";
import {
  breakRecord,
  changeCopy,
  clusterWorkload,
  decodingWorkload,
  hintWorkload,
  moveDatabases,
  switchPageWrites,
  truncateStatus,
  unloggedBuild,
} from "./rare_records.ts";

/** Images in all records, and no WAL goes. */
export const SETTINGS: Record<string, string> = {
  wal_consistency_checking: "all",
  wal_level: "replica",
  max_prepared_transactions: "10",
  autovacuum: "off",
  fsync: "off",
  jit: "off",
  shared_buffers: "64MB",
  checkpoint_timeout: "1h",
  max_wal_size: "8GB",
  wal_keep_size: "60GB",
};
/** No images that replay would take instead of applying the record. */
const NO_IMAGES = { ...SETTINGS, full_page_writes: "off", wal_compression: "on" };
const COMMIT_TIMES = { ...NO_IMAGES, track_commit_timestamp: "on" };

/** What a run left behind. */
export interface RecordedRun {
  readonly server: StockPostgres;
  /** The cluster's files before it. */
  readonly base: string;
}

/** Each in a database of its own, before the restart and after it. */
const DATABASES: readonly [name: string, first: Workload, later: Workload][] = [
  ["tables", tableWorkload, (_server, one) => logicalWorkload(one)],
  ["hashes", indexWorkload, laterWorkload],
  ["inverted", (_server, one) => ginWorkload(one), (_server, one) => ginLaterWorkload(one)],
  ["trees", searchTreeWorkload, laterSearchTreeWorkload],
];

/** Runs everything; the caller removes the cluster. `log` is told of each stage. */
export async function runScenario(
  binDir: string,
  initdb: readonly string[],
  log: (stage: string) => void,
): Promise<RecordedRun> {
  const server = new StockPostgres(binDir, [...initdb]);
  try {
    const base = server.copyData("base");
    const { major } = pgVersion(Number(Deno.readTextFileSync(join(server.dataDir, "PG_VERSION"))));
    for (const stage of STAGES) {
      log(stage.name);
      await server.start(stage.settings);
      await stage.run(server, major);
      await server.stop();
    }
    return { server, base };
  } catch (thrown) {
    await server.remove();
    throw thrown;
  }
}

interface Stage {
  readonly name: string;
  readonly settings: Record<string, string>;
  readonly run: (server: StockPostgres, major: number) => Promise<void>;
}

/** Runs `work` with a session of a database. */
async function session(
  server: StockPostgres,
  database: string,
  work: (client: PgClient) => Promise<void>,
): Promise<void> {
  const client = await server.connect(database);
  await work(client);
  client.close();
}

async function inDatabases(server: StockPostgres, turn: 1 | 2): Promise<void> {
  for (const entry of DATABASES) {
    const [name] = entry;
    if (turn === 1) {
      await session(server, "postgres", (client) => all(client, [`CREATE DATABASE ${name}`]));
    }
    const clients = await Promise.all([1, 2, 3].map(() => server.connect(name)));
    await entry[turn](server, clients[0]!, clients[1]!, clients[2]!);
    for (const client of clients) client.close();
  }
}

const STAGES: readonly Stage[] = [
  {
    name: "tables and indexes",
    settings: NO_IMAGES,
    run: (server) => inDatabases(server, 1),
  },
  {
    name: "databases, tablespaces, backups",
    settings: { ...NO_IMAGES, max_connections: "90" },
    run: async (server, major) => {
      await session(server, "postgres", (client) => clusterWorkload(client, major));
      await session(server, "copied", changeCopy);
      await session(server, "logged", changeCopy);
      await session(server, "postgres", moveDatabases);
    },
  },
  {
    name: "logical decoding",
    settings: { ...COMMIT_TIMES, wal_level: "logical" },
    run: async (server) => {
      await inDatabases(server, 2);
      await session(server, "postgres", decodingWorkload);
    },
  },
  {
    name: "wal_level minimal",
    settings: { ...NO_IMAGES, wal_level: "minimal", max_wal_senders: "0" },
    run: (server) => session(server, "postgres", unloggedBuild),
  },
  {
    name: "page images and logged hints",
    settings: { ...SETTINGS, wal_log_hints: "on" },
    run: async (server) => {
      await session(server, "postgres", hintWorkload);
      await session(server, "postgres", switchPageWrites);
    },
  },
  {
    name: "a crash in the middle of a record",
    settings: COMMIT_TIMES,
    run: async (server) => breakRecord(await server.connect(), server),
  },
  {
    name: "recovery, a million transactions",
    settings: COMMIT_TIMES,
    run: async (server) => {
      await session(server, "tables", (client) =>
        all(client, [
          "CREATE TABLE recovered (i int PRIMARY KEY)",
          "INSERT INTO recovered SELECT i FROM generate_series(1, 1000) i",
        ]));
      await session(
        server,
        "postgres",
        (client) => truncateStatus(client, (database) => server.connect(database)),
      );
      await server.stop();
      Deno.writeTextFileSync(join(server.dataDir, "standby.signal"), "");
    },
  },
  {
    name: "a standby that is promoted",
    settings: COMMIT_TIMES,
    run: (server) =>
      session(server, "tables", (client) =>
        all(client, [
          "SELECT pg_promote()",
          "DELETE FROM recovered WHERE i % 2 = 0",
          "VACUUM recovered",
          "CHECKPOINT",
        ])),
  },
];
