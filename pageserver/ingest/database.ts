/**
 * Ingest of the Database resource manager: CREATE and DROP DATABASE (PostgreSQL 17, dbase_redo).
 *
 *   file copy 0x00:        0 database u32, 4 tablespace u32, 8 source database u32, 12 its tablespace
 *   WAL log (version's):   0 database u32, 4 tablespace u32
 *   drop (version's):      0 database u32, 4 count i32, 8 tablespaces u32 each
 *
 * A file copy is logged as one record, so all pages of the source as of that record become images of
 * the new database. With the WAL log strategy the pages follow as records of their own.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import { encodeDatabase } from "../relations.ts";
import { databaseKey, relmapKey } from "../repository/key.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import type { RecordSink } from "./record_sink.ts";

const CREATE_FILE_COPY = 0x00;
/** Pages copied before other work gets a turn: about a millisecond. */
const COPY_PAGES_PER_SLICE = 64;

/** What copying a database needs beside the sink. */
export interface DatabaseCopyContext {
  readonly served: ServedTimeline;
  readonly reader: PageReader;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** Applies the current Database record; all that was ingested before it must be visible. */
export async function ingestDatabase(
  sink: RecordSink,
  context: DatabaseCopyContext,
): Promise<void> {
  const { cursor, version } = sink;
  const { view, mainOffset: main } = cursor;
  const opcode = cursor.info & 0xf0;
  const db = view.getUint32(main, true);
  if (opcode === version.dbaseDrop) {
    const count = view.getUint32(main + 4, true);
    for (let i = 0; i < count; i++) dropDirectory(sink, view.getUint32(main + 8 + 4 * i, true), db);
    return;
  }
  const spc = view.getUint32(main + 4, true);
  if (opcode === version.dbaseCreateWalLog) {
    sink.putValue(databaseKey(spc, db), encodeDatabase(false));
  } else if (opcode === CREATE_FILE_COPY) {
    const sourceDb = view.getUint32(main + 8, true);
    const sourceSpc = view.getUint32(main + 12, true);
    dropDirectory(sink, spc, db);
    await copyDirectory(sink, context, { spc: sourceSpc, db: sourceDb }, { spc, db });
  }
}

/** A database's directory in one tablespace is gone with everything in it. */
function dropDirectory(sink: RecordSink, spc: number, db: number): void {
  const { relations, interner, timeline } = sink;
  relations.forEachRelationOf(spc, db, timeline.lastRecordLsn, (tag) => {
    sink.drop(interner.relation(tag.spc, tag.db, tag.rel, tag.fork));
  });
  sink.putValue(databaseKey(spc, db), null);
}

async function copyDirectory(
  sink: RecordSink,
  context: DatabaseCopyContext,
  source: { spc: number; db: number },
  target: { spc: number; db: number },
): Promise<void> {
  const { timeline, relations } = sink;
  const lsn = timeline.lastRecordLsn;
  const forks: { tag: RelTag; blocks: number }[] = [];
  relations.forEachRelationOf(source.spc, source.db, lsn, (tag, blocks) => {
    forks.push({ tag: { ...tag }, blocks });
  });
  let copied = 0;
  for (const { tag, blocks } of forks) {
    const from = sink.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
    const to = sink.interner.relation(target.spc, target.db, tag.rel, tag.fork);
    sink.setBlocks(to, blocks);
    for (let block = 0; block < blocks; block++) {
      const page = context.reader.relationPage(context.served, tag, from, block, lsn as Lsn);
      timeline.putImage(to, block, sink.lsn, page.bytes, page.offset, PAGE_SIZE);
      if (++copied % COPY_PAGES_PER_SLICE === 0) await context.pause();
    }
  }
  const relmap = timeline.getValue(relmapKey(source.spc, source.db), lsn);
  if (relmap !== undefined) sink.putValue(relmapKey(target.spc, target.db), relmap);
  sink.putValue(databaseKey(target.spc, target.db), encodeDatabase(relmap !== undefined));
}
