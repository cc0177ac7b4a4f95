/**
 * Records that redo cannot apply, sent through the real path: a WAL proposer of the test's own
 * appends them to an endpoint's timeline while it is stopped. Each damages its page alone, the
 * error names page, LSN and record, and everything after it is ingested.
 */
import assert from "node:assert/strict";
import { safekeeperTargets } from "../cli/control_plane/safekeeper_timelines.ts";
import { WalProposer } from "../compute/wal_proposer/driver.ts";
import { FORK_MAIN, Rmgr } from "../libs/postgres/constants.ts";
import type { RelTag } from "../libs/postgres/relation.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { buildRecord, type RecordParts, WalWriter } from "../libs/postgres/wal/record_builder.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { PageserverClient } from "../pageserver/client.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

const WAIT_MS = 10_000;
/** Five bytes of flags and offset, and no data. */
const EMPTY_TUPLE = new Uint8Array(5);
/** The first id of resource managers of extensions. */
const CUSTOM = 128;

/** Appends records to main, of which no endpoint runs; returns where each ends. */
async function appendRecords(
  neon: TestNeon,
  records: Omit<RecordParts, "previous">[],
): Promise<string[]> {
  const env = neon.local.environment();
  const { tenantId, timelineId } = neon.tenant;
  const pageserver = new PageserverClient(env.config.pageservers[0]!.listen_http_addr);
  const proposer = new WalProposer({
    tenantId,
    timelineId,
    pgVersionNum: 170000,
    walSegmentSize: 16 * 1024 * 1024,
    safekeepers: safekeeperTargets(env, tenantId, timelineId).safekeepers
      .map(({ id, host, pg_port }) => ({ id, host, pgPort: pg_port })),
    onDeposed: () => {},
  });
  proposer.start();
  try {
    const { startLsn } = await proposer.elected(WAIT_MS);
    const reached = (lsn: Lsn) =>
      until(`the pageserver has ${formatLsn(lsn)}`, async () => {
        const info = await pageserver.timeline(tenantId, timelineId);
        return info.last_record_lsn === formatLsn(lsn) ? info : undefined;
      });
    const info = await reached(startLsn);
    const wal = new WalWriter(startLsn, {
      version: pgVersion(17),
      systemId: BigInt(info.system_id),
      segmentSize: info.wal_segment_size,
    });
    let previous = parseLsn(info.prev_record_lsn!);
    const ends: string[] = [];
    for (const record of records) {
      previous = wal.append(buildRecord({ ...record, previous }));
      ends.push(formatLsn(wal.end));
    }
    proposer.append(startLsn, wal.bytes());
    proposer.pump();
    await proposer.committed(wal.end, WAIT_MS);
    await reached(wal.end);
    return ends;
  } finally {
    await proposer.stop();
  }
}

async function tagOf(sql: Sql, relation: string): Promise<RelTag> {
  const [row] = await sql`select pg_relation_filepath(${relation}::regclass) as path`;
  const [, db, rel] = row!["path"].split("/");
  return { spc: 1663, db: Number(db), rel: Number(rel), fork: FORK_MAIN };
}

testWithNeon("a record that cannot be applied damages its page alone", {}, async (neon) => {
  let sql = neon.connect(await neon.local.startEndpoint("main"));
  await sql`create table t as select i, repeat('x', 100) as filler from generate_series(1, 500) i`;
  await sql`create table u as select i from generate_series(1, 1000) i`;
  await sql`create index u_i on u(i)`;
  const [table, index] = [await tagOf(sql, "t"), await tagOf(sql, "u_i")];
  await neon.closeClients();
  await neon.local.stopEndpoint("main");

  const reference = (tag: RelTag, block: number) => [{ id: 0, tag, block, data: EMPTY_TUPLE }];
  const ends = await appendRecords(neon, [
    { rmid: CUSTOM, info: 0x10, blocks: reference(table, 1) },
    // A tuple for line pointer 900 of a page that has about 60, with its flags
    {
      rmid: Rmgr.HEAP,
      info: 0x00,
      main: Uint8Array.of(0x84, 0x03, 0),
      blocks: reference(table, 2),
    },
    // The same without any data of its own
    { rmid: Rmgr.HEAP, info: 0x00, blocks: reference(table, 3) },
    { rmid: CUSTOM + 5, info: 0x20, blocks: reference(index, 1) },
    { rmid: CUSTOM, info: 0x10, main: new Uint8Array(40) },
  ]);

  sql = neon.connect(await neon.local.startEndpoint("main"));
  const log = () =>
    Deno.readTextFileSync(`${neon.local.directory}/compute/endpoints/main/postgres.log`);
  const rowsIn = (block: number) =>
    sql.unsafe(`select i from t where ctid >= '(${block},0)' and ctid < '(${block + 1},0)'`);
  const { rel } = table;
  const records = ["custom128 UNKNOWN (10)", "Heap INSERT", "Heap INSERT"];
  for (const [at, record] of records.entries()) {
    const block = at + 1;
    await assert.rejects(rowsIn(block), { code: "58030" });
    const text = `Cannot redo ${record} ending at ${
      ends[at]
    } on 1663/${table.db}/${rel} block ${block}`;
    assert.ok(log().includes(text), `${text} in ${log()}`);
  }
  for (const block of [0, 4]) assert.ok((await rowsIn(block)).length > 50);
  await sql`insert into t values (0, '')`;

  await sql`set enable_seqscan = off`;
  await assert.rejects(sql`select from u where i = 5`.execute(), { code: "58030" });
  assert.ok(
    log().includes(`custom133 UNKNOWN (20) ending at ${ends[3]} on 1663/${index.db}/${index.rel}`),
  );
  await sql`reindex index u_i`;
  assert.equal((await sql`select from u where i = 5`).count, 1);
});
