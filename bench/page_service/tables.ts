/**
 * Two tables in a repository directory, without PostgreSQL: one imported, so that its pages are
 * images that lie in order in image layers, and one as COPY makes it, a record for each page.
 */
import { setImmediate } from "node:timers/promises";
import { BKPBLOCK_WILL_INIT, Rmgr } from "../../libs/postgres/constants.ts";
import { buildRecord, WalWriter } from "../../libs/postgres/wal/record_builder.ts";
import { ByteWriter } from "../../libs/utils/bytes.ts";
import { newTenantId, newTimelineId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { clusterTar, SYSTEM_ID, u32s, VERSION } from "../../pageserver/cluster_fixture.ts";
import { importCluster } from "../../pageserver/import/import_cluster.ts";
import { WalIngest } from "../../pageserver/ingest/wal_ingest.ts";
import { PageReader } from "../../pageserver/page_service/page_reader.ts";
import { TenantManager } from "../../pageserver/repository/tenant_manager.ts";
import { servedTimeline } from "../../pageserver/served_timeline.ts";

const PAGE_BYTES = 8192;
/** Where the tables are, and their fork. */
export const DATABASE = { spc: 1663, db: 5, fork: 0 };
/** Relations of the two tables. */
export const IMPORTED = 20000;
export const COPIED = 20001;
/** Rows of a page of pgbench_accounts, and bytes of one behind its header. */
const ROWS = 61;
const ROW_BYTES = 97;
/** Heap2 MULTI_INSERT with the init bit (pageserver/walredo/heap_records.ts). */
const MULTI_INSERT_INIT = 0xd0;
const WAL_BYTES_AT_ONCE = 4 * 1024 * 1024;

/** The timeline with both. */
export interface Tables {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly lsn: Lsn;
}

/** Makes both tables in `directory`, `pages` each. */
export async function makeTables(directory: string, pages: number): Promise<Tables> {
  const pause = () => setImmediate();
  const now = () => performance.now();
  const manager = TenantManager.open(directory, { now, pause });
  const tenant = await manager.attach(newTenantId(), 1);
  const table = new Uint8Array(pages * PAGE_BYTES);
  const words = new Uint32Array(table.buffer);
  for (let at = 0; at < words.length; at++) words[at] = wordOfPage(0, at);
  const tar = clusterTar({ [`base/${DATABASE.db}/${IMPORTED}`]: table });
  const timeline = await importCluster(tenant, manager.interner, newTimelineId(), 17, tar);
  const served = servedTimeline(timeline);
  const ingest = new WalIngest({ served, reader: new PageReader(PAGE_BYTES), now, pause });
  const identity = { version: VERSION, systemId: SYSTEM_ID, segmentSize: 16 * 1024 * 1024 };
  const wal = new WalWriter(timeline.lastRecordLsn, identity);
  const { spc, db, fork } = DATABASE;
  let previous = timeline.prevRecordLsn;
  let fed = 0;
  const append = (record: Omit<Parameters<typeof buildRecord>[0], "previous" | "xid">) => {
    previous = wal.append(buildRecord({ ...record, xid: 700, previous }));
  };
  append({ rmid: Rmgr.SMGR, info: 0x10, main: u32s(spc, db, COPIED, fork) });
  for (let block = 0; block < pages; block++) {
    append({
      rmid: Rmgr.HEAP2,
      info: MULTI_INSERT_INIT,
      main: new ByteWriter("little").u8(0).u8(0).u16(ROWS).bytes(),
      blocks: [{
        id: 0,
        tag: { ...DATABASE, rel: COPIED },
        block,
        flags: BKPBLOCK_WILL_INIT,
        data: rows(block),
      }],
    });
    if (wal.end - wal.start - fed < WAL_BYTES_AT_ONCE) continue;
    await ingest.feed(wal.bytes().slice(fed));
    fed = wal.end - wal.start;
  }
  await ingest.feed(wal.bytes().slice(fed));
  const lsn = timeline.lastRecordLsn;
  await timeline.flush();
  await manager.shutdown();
  return { tenantId: tenant.tenantId, timelineId: timeline.timelineId, lsn };
}

/** The little-endian word number `word` of a block of the imported table. */
export function wordOfPage(block: number, word: number): number {
  return Math.imul(block * PAGE_BYTES / 4 + word, 0x9e3779b1) >>> 0;
}

/** The last byte of a block of the table that was copied: the end of its first row. */
export function rowByte(block: number): number {
  return (block + ROW_BYTES - 1) & 0xff;
}

/** The block data of a multi-insert record. */
function rows(block: number): Uint8Array {
  const writer = new ByteWriter("little");
  for (let row = 0; row < ROWS; row++) {
    if (writer.length % 2 === 1) writer.u8(0);
    writer.u16(ROW_BYTES).u16(4).u16(0x0802).u8(24);
    for (let at = 0; at < ROW_BYTES; at++) writer.u8((block + row + at) & 0xff);
  }
  return writer.bytes();
}
