/**
 * Proof that the storage has everything that an endpoint has: the endpoint is checkpointed and
 * stopped in an orderly way, so that its files hold all of its pages, and the storage is restarted,
 * so that it answers from its own files; then
 *
 *   pages   every page of those files is the page that the pageserver has at that LSN
 *   dump    an endpoint made anew from the storage dumps the same roles and databases
 *   amcheck PostgreSQL's own checks of tables and indexes find nothing on that endpoint
 *   fresh   after that, the pages that the new endpoint has are the pageserver's, too
 *
 * and last a byte of the first endpoint's files is changed, which has to be noticed.
 */
import { join } from "node:path";
import { computeClient } from "../../cli/control_plane/clients.ts";
import { SUPERUSER } from "../../cli/control_plane/endpoints.ts";
import { FORK_MAIN } from "../../libs/postgres/constants.ts";
import { pageSpecial } from "../../libs/postgres/page.ts";
import { type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import type { TestNeon } from "../harness.ts";
import { PageOracle } from "../page_oracle/oracle.ts";
import { until } from "../support/waiting.ts";
import { amcheck, type AmcheckResult } from "./amcheck.ts";
import { query, type Server } from "./client_programs.ts";
import { compareDumps, dumpAll, type DumpComparison } from "./dumps.ts";

/** The endpoint that is made from the storage alone. */
const FRESH = "fresh";

/** What is to be proven. */
interface ProofRequest {
  readonly neon: TestNeon;
  /** A running endpoint of branch main. */
  readonly endpoint: string;
  readonly port: number;
  /** Client programs of the same major version. */
  readonly binDir: string;
  readonly major: number;
  readonly step: (text: string) => void;
}

/** What was compared. Everything is right if no list has an entry, and `noticed`. */
export interface StorageProof {
  readonly lsn: Lsn;
  readonly pages: PageOracle;
  readonly dump: DumpComparison;
  readonly amcheck: AmcheckResult;
  readonly freshPages: PageOracle;
  /** A changed byte was found, and nothing else. */
  readonly noticed: boolean;
}

/** Compares all. The endpoint is stopped; the fresh one runs at the end. */
export async function proveStorage(request: ProofRequest): Promise<StorageProof> {
  const { neon, endpoint, binDir, major, step } = request;
  const server: Server = { port: request.port, user: SUPERUSER };
  step("dump of the endpoint");
  await quiesce(server);
  const copiedByWal = await databasesCopied(server);
  const checksums = (await query(server, "postgres", "SHOW data_checksums"))[0]![0] === "on";
  const before = await dumpAll(binDir, server);
  await quiesce(server);

  step("restart of everything");
  const { lsn, arena } = await stop(neon, endpoint);
  await neon.local.stop();
  await neon.local.start();

  step("every page of the stopped endpoint");
  const stopped = { endpoint, branch: "main", lsn, copiedByWal, checksums, arena };
  const pages = await PageOracle.compare(neon, stopped);

  step("dump of a fresh endpoint");
  const settings = { autovacuum: "off" };
  const { port } = await neon.local.startEndpoint(FRESH, { branch: "main", settings });
  const fresh: Server = { port, user: SUPERUSER };
  const dump = compareDumps(before, await dumpAll(binDir, fresh));

  step("amcheck on it");
  const checked = await amcheck(binDir, major, fresh);

  step("every page that it has");
  const [[end]] = await query(
    fresh,
    "postgres",
    "CHECKPOINT; SELECT pg_current_wal_flush_lsn()",
  ) as [[string]];
  const now = { endpoint: FRESH, branch: "main", lsn: parseLsn(end), copiedByWal, checksums };
  const freshPages = await PageOracle.compare(neon, now);

  step("a changed byte");
  const noticed = await noticesChangedByte(neon, stopped, pages.differences.length);
  return { lsn, pages, dump, amcheck: checked, freshPages, noticed };
}

/** Nothing is left to write: no vacuum runs, and all pages are in files. */
async function quiesce(server: Server): Promise<void> {
  await query(server, "postgres", "ALTER SYSTEM SET autovacuum = off");
  await query(server, "postgres", "SELECT pg_reload_conf()");
  await until("no autovacuum runs", async () => {
    const rows = await query(
      server,
      "postgres",
      "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'",
    );
    return rows[0]![0] === "0";
  });
  await query(server, "postgres", "CHECKPOINT");
}

/** All but those of initdb. */
async function databasesCopied(server: Server): Promise<number[]> {
  const rows = await query(server, "postgres", "SELECT oid FROM pg_database WHERE oid >= 16384");
  return rows.map(([oid]) => Number(oid));
}

/** Stops the endpoint; keeps its arena, which a stop removes. */
async function stop(neon: TestNeon, endpoint: string): Promise<{ lsn: Lsn; arena: string }> {
  const directory = join(neon.local.directory, "compute/endpoints", endpoint);
  const arena = join(directory, "arena.kept");
  Deno.linkSync(join(directory, "arena"), arena);
  await neon.local.stopEndpoint(endpoint);
  const { lsn } = await computeClient(neon.local.environment()).endpoint(endpoint);
  if (lsn === null) throw new Error(`Cannot tell where endpoint "${endpoint}" was stopped`);
  return { lsn: parseLsn(lsn), arena };
}

/** Changes a byte of the last tuple of one heap page. */
async function noticesChangedByte(
  neon: TestNeon,
  stopped: Parameters<typeof PageOracle.compare>[1],
  others: number,
): Promise<boolean> {
  let changed: string | undefined;
  const { differences } = await PageOracle.compare(neon, {
    ...stopped,
    spoil: (tag, page, block) => {
      const special = pageSpecial(new DataView(page.buffer), 0);
      const isHeap = tag.fork === FORK_MAIN && special === page.length;
      if (changed !== undefined || !isHeap || tag.rel < 16384) return;
      changed = `${tag.rel} block ${block} `;
      page[special - 9]! ^= 0x01;
    },
  });
  return differences.length === others + 1 &&
    differences.some((text) => text.includes(changed ?? "?"));
}
