/**
 * What reads cost while the pageserver takes in WAL: one bulk load, and beside it one page at a
 * time from the page service (random blocks of a table, as of before the load: no read waits for
 * WAL) and new sessions at the endpoint that run a trivial query. Before, the same without a load.
 *
 * Run: deno task bench:ingest-reads [--rows 2000000] [--seconds 5] [--json FILE]
 * (265 bytes of WAL a row)
 */
import { type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import { DEFAULT_TABLESPACE, FORK_MAIN } from "../libs/postgres/constants.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import type { CreatedTenant } from "../mod.ts";
import { PageServiceClient } from "../tests/page_oracle/page_service.ts";
import { endpointTarget, query, settle } from "./our_side.ts";
import { allowOptions, figure, machine, markdownTable, numberOption, writeJson } from "./report.ts";

const PROBE_ROWS = 100_000;
/** Pause between two reads of a page, and between two sessions. */
const READ_PAUSE_MS = 2;
const SESSION_PAUSE_MS = 100;
const CAUGHT_UP_MS_MAX = 180_000;

/** Milliseconds of each read and of each session. */
interface Latencies {
  readonly pages: number[];
  readonly sessions: number[];
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats `step` until `done`, and notes how long each took. */
async function repeat(
  step: () => Promise<unknown>,
  pauseMs: number,
  done: () => boolean,
): Promise<number[]> {
  const taken: number[] = [];
  while (!done()) {
    const begun = performance.now();
    await step();
    taken.push(performance.now() - begun);
    await sleep(pauseMs);
  }
  return taken;
}

/** What reads take until `work` is done. */
async function readBeside(
  work: Promise<unknown>,
  readPage: () => Promise<void>,
  port: number,
): Promise<Latencies> {
  let isDone = false;
  const done = () => isDone;
  const session = () =>
    query(endpointTarget(port), "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')");
  const reads = Promise.all([
    repeat(readPage, READ_PAUSE_MS, done),
    repeat(session, SESSION_PAUSE_MS, done),
  ]);
  const [[pages, sessions]] = await Promise.all([reads, work.finally(() => isDone = true)]);
  return { pages, sessions };
}

/** Reads a random page of a table that is not written any more. */
async function openProbe(local: LocalNeon, tenant: CreatedTenant, port: number) {
  const [row] = await query(
    endpointTarget(port),
    `CREATE TABLE probe AS SELECT i, repeat('x', 500) FROM generate_series(1, ${PROBE_ROWS}) i`,
    `SELECT pg_current_wal_flush_lsn(), oid, pg_relation_filenode('probe')
       FROM pg_database WHERE datname = current_database()`,
  );
  const [lsn, db, rel] = row!;
  const { listen_pg_addr } = local.environment().config.pageservers[0]!;
  const source = {
    address: listen_pg_addr,
    tenant: tenant.tenantId,
    timeline: tenant.timelineId,
  };
  const client = await PageServiceClient.connect(source, parseLsn(lsn!));
  const tag = { spc: DEFAULT_TABLESPACE, db: Number(db), rel: Number(rel), fork: FORK_MAIN };
  const blocks = await client.blocks(tag);
  const read = async () => {
    await client.page(tag, Math.floor(Math.random() * blocks));
  };
  return { read, close: () => client.close() };
}

function rowOf(name: string, taken: readonly number[]): string[] {
  const sorted = [...taken].sort((a, b) => a - b);
  const at = (share: number) => figure(sorted[Math.floor((sorted.length - 1) * share)]!);
  return [name, String(sorted.length), at(0.5), at(0.99), at(1)];
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["rows", "seconds", "json"]);
  const rows = numberOption(args, "rows", 2_000_000);
  const seconds = numberOption(args, "seconds", 5);
  console.log(machine());
  await using local = await startLocalNeon();
  const tenant = await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint("main");
  const probe = await openProbe(local, tenant, port);
  await settle(local, tenant, CAUGHT_UP_MS_MAX);
  const idle = await readBeside(sleep(seconds * 1000), probe.read, port);
  const begun = performance.now();
  let walBytes = 0;
  let loadMs = 0;
  const load = async () => {
    const [row] = await query(
      endpointTarget(port),
      "CREATE TABLE started AS SELECT pg_current_wal_lsn() AS lsn",
      `CREATE TABLE bulk AS SELECT i, repeat('x', 200) v FROM generate_series(1, ${rows}) i`,
      "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), lsn) FROM started",
    );
    walBytes = Number(row![0]);
    loadMs = performance.now() - begun;
    await settle(local, tenant, CAUGHT_UP_MS_MAX);
  };
  const loaded = await readBeside(load(), probe.read, port);
  const ingestMs = performance.now() - begun;
  probe.close();
  const table = markdownTable(
    ["ms", "count", "p50", "p99", "max"],
    [
      rowOf("page, idle", idle.pages),
      rowOf("page, under ingest", loaded.pages),
      rowOf("session, idle", idle.sessions),
      rowOf("session, under ingest", loaded.sessions),
    ],
  );
  const rate = (ms: number) => `${figure(walBytes / 1000 / ms)} MB/s`;
  console.log(
    `${figure(walBytes / 1e6)} MB of WAL: loaded at ${rate(loadMs)}, ` +
      `ingested at ${rate(ingestMs)}\n\n${table}`,
  );
  writeJson(args, { machine: machine(), rows, walBytes, loadMs, ingestMs, idle, loaded });
}

if (import.meta.main) await main(Deno.args);
