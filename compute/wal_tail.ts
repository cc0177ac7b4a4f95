/**
 * The end of the WAL of a Postgres that was killed, perhaps with its host: whole records that it
 * wrote into its pg_wal and that no safekeeper has been sent yet.
 *
 * No commit among them was acknowledged, so they could be dropped, and data pages are never
 * recovered from local files. But where PostgreSQL runs without the preloaded library, a logical
 * walsender sends what is on the local disk, without waiting for a quorum: a subscriber may have
 * applied them. So they are given to the safekeepers, and the publisher is not behind its
 * subscribers then. (What is lost with the machine's disk is lost; failover slots of 17 and later
 * wait for the quorum.)
 */
import { PAGE_SIZE, WAL_LONG_HEADER_SIZE } from "../libs/postgres/constants.ts";
import type { PgVersion } from "../libs/postgres/versions.ts";
import { firstRecordOnPage } from "../libs/postgres/wal/page_header.ts";
import { RecordCursor } from "../libs/postgres/wal/record_cursor.ts";
import { WalStreamDecoder } from "../libs/postgres/wal/stream_decoder.ts";
import { Corrupt, messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { addLsn, formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { LocalWal } from "./local_wal.ts";
import type { WalProposer } from "./wal_proposer/driver.ts";

const log = logger("compute", "wal_tail");

/** How far back records are read, so that one that ends in the tail is checked from its start. */
const LOOK_BACK_BYTES = 4 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
/** A longer tail is not taken: the stream had been held up for long, and commits with it. */
const TAIL_BYTES_MAX = 16 * 1024 * 1024;
/** Processes of a killed Postgres end within moments; two looks so far apart agree then. */
const SETTLE_MS = 50;
const LOOKS_MAX = 20;
const COMMIT_MS_MAX = 2000;

/** Where the tail is. */
interface TailOptions {
  readonly pgdata: string;
  readonly version: PgVersion;
  readonly proposer: WalProposer;
}

interface Tail extends TailOptions {
  readonly wal: LocalWal;
}

/** Appends the tail and waits for a quorum; what cannot be taken is logged and dropped. */
export async function takeWalTail(options: TailOptions): Promise<void> {
  const { proposer } = options;
  using local = new LocalWal(options.pgdata);
  const tail = { ...options, wal: local };
  const start = proposer.endLsn;
  try {
    const end = await settledEnd(tail);
    if (end <= start || end - start > TAIL_BYTES_MAX) return;
    const wal = new Uint8Array(end - start);
    if (local.read(start, wal) < wal.length) throw new Error("its file is too short");
    proposer.append(start, wal);
    proposer.pump();
    await proposer.committed(end, COMMIT_MS_MAX);
    log.info("took {bytes} bytes of WAL at {lsn} that a killed Postgres had written", {
      bytes: end - start,
      lsn: formatLsn(start),
    });
  } catch (thrown) {
    log.warning("WAL of a killed Postgres behind {lsn} is dropped: {why}", {
      lsn: formatLsn(start),
      why: messageOf(thrown),
    });
  }
}

/** End of the last whole record, when no process writes any more. */
async function settledEnd(options: Tail): Promise<Lsn> {
  let end = lastRecordEnd(options);
  for (let look = 0; look < LOOKS_MAX; look++) {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const now = lastRecordEnd(options);
    if (now === end) break;
    end = now;
  }
  return end;
}

function lastRecordEnd(options: Tail): Lsn {
  const { version, proposer } = options;
  const { walSegmentSize } = proposer.options;
  const begin = knownRecordStart(options);
  if (begin === undefined) return proposer.endLsn;
  const decoder = new WalStreamDecoder(begin, walSegmentSize, version, { checkBlocks: false });
  const cursor = new RecordCursor();
  const chunk = new Uint8Array(CHUNK_BYTES);
  try {
    for (;;) {
      while (decoder.next(cursor));
      const count = options.wal.read(decoder.fedLsn, chunk);
      if (count === 0) return decoder.recordLsn;
      decoder.feed(chunk.subarray(0, count));
    }
  } catch (thrown) {
    if (!(thrown instanceof Corrupt)) throw thrown;
    return decoder.recordLsn; // how all WAL ends that nobody has finished
  }
}

/**
 * Start of a record before the tail: all that follow are linked to it, and checked. The run's own
 * first one, or one some way back; undefined if that has none.
 */
function knownRecordStart(options: Tail): Lsn | undefined {
  const { version, proposer } = options;
  const { walSegmentSize } = proposer.options;
  const end = proposer.endLsn;
  if (end - proposer.startLsn <= LOOK_BACK_BYTES) return proposer.startLsn;
  const header = new Uint8Array(WAL_LONG_HEADER_SIZE);
  const back = addLsn(end, -LOOK_BACK_BYTES);
  for (let page = addLsn(back, -(back % PAGE_SIZE)); page < end; page = addLsn(page, PAGE_SIZE)) {
    if (options.wal.read(page, header) < header.length) return undefined;
    const first = firstRecordOnPage(header, page, version, walSegmentSize);
    if (first !== undefined) return first <= end ? first : undefined;
  }
  return undefined;
}
