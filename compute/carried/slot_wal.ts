/**
 * The WAL that logical slots need of what was before the start: fetched from the safekeeper whose
 * log the start continues, from the slots' oldest restart LSN to the start, into pg_wal. Endpoints
 * without slots need none of it. It takes as long as there is much, so a start waits for the
 * slowest consumer's lag.
 *
 * Without remote storage the safekeepers keep only so much for a slot. One whose WAL is gone is
 * dropped, as PostgreSQL invalidates it when max_slot_wal_keep_size is exceeded.
 */
import { dirname } from "node:path";
import { slotPath } from "../../libs/basebackup/carried_files.ts";
import { ServerError } from "../../libs/pgwire/messages.ts";
import type { SlotState } from "../../libs/postgres/replication_slot.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { segmentName, segmentNumber, segmentStart } from "../../libs/postgres/wal/segment.ts";
import { WAL_TIMELINE_ID } from "../../libs/postgres/constants.ts";
import { writeAll } from "../../libs/utils/durable.ts";
import { type FileOwner, give } from "../endpoint_directory.ts";
import { catchUp, type LogOfTerm } from "../wal_proposer/catch_up.ts";

/** The start fails when the safekeeper that has the WAL says nothing for so long. */
const SILENCE_MS_MAX = 10_000;

const log = logger("compute", "slots");

/** SQLSTATE (undefined_file) of a safekeeper, and of PostgreSQL, for WAL that was removed. */
const WAL_IS_GONE = "58P01";

/** Where decoding begins for these slots; undefined if none needs WAL. */
export function oldestRestartLsn(slots: readonly SlotState[]): Lsn | undefined {
  const lsns = slots.map(({ restartLsn }) => restartLsn).filter((lsn) => lsn !== INVALID_LSN);
  return lsns.length === 0 ? undefined : Math.min(...lsns) as Lsn;
}

/** Whose log, and where it goes. */
interface SlotWalOptions extends LogOfTerm {
  readonly pgdata: string;
  readonly owner: FileOwner | undefined;
  readonly walSegmentSize: number;
  readonly restartLsn: Lsn;
  /** Its segment is in pg_wal, with what comes behind it. */
  readonly startLsn: Lsn;
}

/**
 * Fetches what the slots need; returns those for which all of it was there. The others are removed
 * from pgdata. Throws what the safekeeper or the connection to it throws otherwise.
 */
export async function fetchSlotsWal(
  options: Omit<SlotWalOptions, "restartLsn">,
  slots: readonly SlotState[],
): Promise<readonly SlotState[]> {
  for (let left = slots;;) {
    const restartLsn = oldestRestartLsn(left);
    if (restartLsn === undefined) return left;
    try {
      await fetchSlotWal({ ...options, restartLsn });
      return left;
    } catch (thrown) {
      if (!(thrown instanceof ServerError) || thrown.code !== WAL_IS_GONE) throw thrown;
      const lost = left.filter((slot) => slot.restartLsn === restartLsn);
      left = left.filter((slot) => slot.restartLsn !== restartLsn);
      for (const { name } of lost) {
        log.error("slot {name} is dropped: the WAL from {lsn} on, which it needs, is gone", {
          name,
          lsn: formatLsn(restartLsn),
        });
        Deno.removeSync(`${options.pgdata}/${dirname(slotPath(name))}`, { recursive: true });
      }
    }
  }
}

/** Throws what the safekeeper or the connection to it throws. */
async function fetchSlotWal(options: SlotWalOptions): Promise<void> {
  const { pgdata, owner, walSegmentSize, restartLsn, startLsn } = options;
  const from = segmentStart(segmentNumber(restartLsn, walSegmentSize), walSegmentSize);
  let at: number = from;
  let file: Deno.FsFile | undefined;
  const write = (wal: Uint8Array): void => {
    for (let done = 0; done < wal.length;) {
      const offset = at % walSegmentSize;
      if (offset === 0 || file === undefined) {
        file?.close();
        file = openSegment(`${pgdata}/pg_wal`, at as Lsn, walSegmentSize, owner);
      }
      const count = Math.min(wal.length - done, walSegmentSize - offset);
      writeAll(file, wal.subarray(done, done + count));
      done += count;
      at += count;
    }
  };
  try {
    await catchUp({
      ...options,
      from,
      silenceMsMax: SILENCE_MS_MAX,
      goesOn: () => at < startLsn,
      send: async (wal) => write(wal.subarray(0, Math.max(0, startLsn - at))),
    });
  } finally {
    file?.close();
  }
}

/** A segment file of full size; the last one exists. */
function openSegment(
  directory: string,
  lsn: Lsn,
  segmentSize: number,
  owner: FileOwner | undefined,
): Deno.FsFile {
  const name = segmentName(WAL_TIMELINE_ID, segmentNumber(lsn, segmentSize), segmentSize);
  const path = `${directory}/${name}`;
  const file = Deno.openSync(path, { write: true, create: true, mode: 0o600 });
  file.truncateSync(segmentSize);
  give(path, owner);
  return file;
}
