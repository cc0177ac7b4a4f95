/**
 * Ingest of the Database resource manager: CREATE and DROP DATABASE (PostgreSQL 17, dbase_redo).
 *
 *   CREATE, file copy  the new database and its source, each with its tablespace
 *   CREATE, WAL log    the new database and its tablespace
 *   DROP               the database and all its tablespaces
 *
 * A file copy is logged as one record, so all pages of the source as of that record become images
 * of the new database. With the WAL log strategy the pages follow as records of their own.
 *
 * The record is committed: it cannot be refused because of a page of the source that redo cannot
 * build. Such a page gets the record itself as its version, so reading it is an error, of that page
 * alone.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { formatRel, type RelTag } from "../../libs/postgres/relation.ts";
import {
  type DatabaseDirectory,
  DBASE_CREATE_FILE_COPY,
  readDatabaseCreate,
  readDatabaseDrop,
  readDatabaseSource,
} from "../../libs/postgres/wal/file_records.ts";
import { logger } from "../../libs/utils/log.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import { encodeDatabase } from "../relations.ts";
import { databaseKey, relmapKey } from "../repository/key.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { RedoError } from "../walredo/redo_error.ts";
import type { RecordSink } from "./record_sink.ts";

const log = logger("pageserver", "ingest");

/** Pages copied before other work gets a turn: about a millisecond. */
const COPY_PAGES_PER_SLICE = 64;

/** What copying a database needs beside the sink. */
interface DatabaseCopyContext {
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
  const opcode = cursor.info & 0xf0;
  if (opcode === version.dbaseDrop) {
    const { db, tablespaces } = readDatabaseDrop(cursor);
    for (const spc of tablespaces) dropDirectory(sink, { spc, db });
  } else if (opcode === version.dbaseCreateWalLog) {
    const { spc, db } = readDatabaseCreate(cursor);
    sink.putValue(databaseKey(spc, db), encodeDatabase(false));
  } else if (opcode === DBASE_CREATE_FILE_COPY) {
    const target = readDatabaseCreate(cursor);
    dropDirectory(sink, target);
    await copyDirectory(sink, context, readDatabaseSource(cursor), target);
  }
}

/** A database's directory in one tablespace is gone with everything in it. */
function dropDirectory(sink: RecordSink, { spc, db }: DatabaseDirectory): void {
  const { relations, interner, timeline } = sink;
  relations.forEachRelationOf(spc, db, timeline.lastRecordLsn, (tag) => {
    sink.drop(interner.relation(tag.spc, tag.db, tag.rel, tag.fork));
  });
  sink.putValue(databaseKey(spc, db), null);
}

async function copyDirectory(
  sink: RecordSink,
  context: DatabaseCopyContext,
  source: DatabaseDirectory,
  target: DatabaseDirectory,
): Promise<void> {
  const { timeline, relations } = sink;
  const lsn = timeline.lastRecordLsn;
  const forks: { tag: RelTag; blocks: number }[] = [];
  relations.forEachRelationOf(source.spc, source.db, lsn, (tag, blocks) => {
    forks.push({ tag: { ...tag }, blocks });
  });
  let copied = 0;
  for (const { tag, blocks } of forks) {
    await copyFork(sink, context, tag, blocks, target, lsn);
    copied += blocks;
    if (copied < COPY_PAGES_PER_SLICE) continue;
    copied = 0;
    await context.pause();
  }
  const relmap = timeline.getValue(relmapKey(source.spc, source.db), lsn);
  if (relmap !== undefined) sink.putValue(relmapKey(target.spc, target.db), relmap);
  sink.putValue(databaseKey(target.spc, target.db), encodeDatabase(relmap !== undefined));
}

/** Copies one relation fork as of `lsn`. */
async function copyFork(
  sink: RecordSink,
  { served, reader, pause }: DatabaseCopyContext,
  tag: RelTag,
  blocks: number,
  target: DatabaseDirectory,
  lsn: Lsn,
): Promise<void> {
  const from = sink.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
  const to = sink.interner.relation(target.spc, target.db, tag.rel, tag.fork);
  let failure: RedoError | undefined;
  sink.setBlocks(to, blocks);
  for (let block = 0; block < blocks; block++) {
    try {
      const page = reader.relationPage(served, tag, from, block, lsn);
      sink.timeline.putImage(to, block, sink.lsn, page.bytes, page.offset, PAGE_SIZE);
    } catch (thrown) {
      if (!(thrown instanceof RedoError)) throw thrown;
      failure ??= thrown;
      sink.put(to, block, true);
    }
    if (block % COPY_PAGES_PER_SLICE === COPY_PAGES_PER_SLICE - 1) await pause();
  }
  if (failure === undefined) return;
  log.warning("database {db} has got pages of {rel} that cannot be read: {why}", {
    db: target.db,
    rel: formatRel(tag),
    why: failure.message,
  });
}
