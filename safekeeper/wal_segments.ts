/**
 * Segment files of one timeline's WAL.
 *
 *   <24 hex>           a complete segment, for example 000000010000000000000003
 *   <24 hex>.partial   the one that is being written
 *   waltmp             one that is being made: not WAL yet, removed on start
 *   waltmp.restored    one on its way from remote storage, likewise
 *   walspare           zeros for the next one (spare_segment.ts)
 *
 * A segment file has its full size from the start, zeros or a hole where nothing was written, and
 * appears under its name only then. Where a timeline begins in the middle of a segment, the bytes
 * before are zeros behind valid page headers, so that a reader that starts at the segment's begin
 * finds PostgreSQL's format.
 */
import { PAGE_SIZE, WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { type WalIdentity, writePageHeader } from "../libs/postgres/wal/page_header.ts";
import { parseSegmentName, segmentName, segmentStart } from "../libs/postgres/wal/segment.ts";
import { fsyncDirectory, writeAll } from "../libs/utils/durable.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { addLsn, type Lsn } from "../libs/utils/lsn.ts";

const PARTIAL_SUFFIX = ".partial";
const TEMPORARY_NAME = "waltmp";

/** Where a segment from remote storage is made. */
export const RESTORE_NAME: string = `${TEMPORARY_NAME}.restored`;

/** Path of a segment under its complete name. */
function segmentPath(directory: string, segment: number, segmentSize: number): string {
  return `${directory}/${segmentName(WAL_TIMELINE_ID, segment, segmentSize)}`;
}

/** Opens a segment by either name; undefined if there is none. */
export function openSegment(
  directory: string,
  segment: number,
  segmentSize: number,
  options: Deno.OpenOptions,
): Deno.FsFile | undefined {
  const path = segmentPath(directory, segment, segmentSize);
  for (const candidate of [path + PARTIAL_SUFFIX, path]) {
    const file = ifThere(() => Deno.openSync(candidate, options));
    if (file !== undefined) return file;
  }
  return undefined;
}

/** A segment file in a directory. */
interface SegmentFile {
  readonly segment: number;
  readonly path: string;
  readonly partial: boolean;
}

/** The segment files of a directory, lowest first. Removes a half-made one. */
export function listSegments(directory: string, segmentSize: number): SegmentFile[] {
  const found: SegmentFile[] = [];
  for (const entry of Deno.readDirSync(directory)) {
    const path = `${directory}/${entry.name}`;
    if (entry.name.startsWith(TEMPORARY_NAME)) {
      Deno.removeSync(path);
      continue;
    }
    const partial = entry.name.endsWith(PARTIAL_SUFFIX);
    const name = partial ? entry.name.slice(0, -PARTIAL_SUFFIX.length) : entry.name;
    const parsed = parseSegmentName(name, segmentSize);
    if (parsed !== undefined) found.push({ segment: parsed.segment, path, partial });
  }
  return found.sort((a, b) => a.segment - b.segment);
}

/** The segment under its partial name, durable; a complete one is renamed back. */
export function reopenAsPartial(
  directory: string,
  segment: number,
  segmentSize: number,
): Deno.FsFile | undefined {
  const path = segmentPath(directory, segment, segmentSize);
  ifThere(() => {
    Deno.renameSync(path, path + PARTIAL_SUFFIX);
    fsyncDirectory(directory);
  });
  const file = openSegment(directory, segment, segmentSize, { read: true, write: true });
  // A crash in the middle of a truncation leaves the file short.
  if (file !== undefined && file.statSync().size < segmentSize) file.truncateSync(segmentSize);
  return file;
}

/**
 * Makes a segment in which WAL will start at `start`: out of `spare`, a file of zeros of that size,
 * if there is one. Neither the file nor its name is durable yet. Throws what the file system
 * throws, for example when the disk is full.
 */
export function createSegment(
  directory: string,
  segment: number,
  identity: WalIdentity,
  start: Lsn,
  spare?: string,
): Deno.FsFile {
  const size = identity.segmentSize;
  const temporary = spare ?? `${directory}/${TEMPORARY_NAME}`;
  const made = { read: true, write: true, create: true, truncate: spare === undefined };
  const file = Deno.openSync(temporary, made);
  try {
    file.truncateSync(size);
    writePrologue(file, segmentStart(segment, size), start, identity);
    Deno.renameSync(temporary, segmentPath(directory, segment, size) + PARTIAL_SUFFIX);
    return file;
  } catch (thrown) {
    file.close();
    throw thrown;
  }
}

/** Headers of the segment's first page and of the page of `start`, as far as they lie before it. */
function writePrologue(file: Deno.FsFile, begin: Lsn, start: Lsn, identity: WalIdentity): void {
  const startPage = addLsn(start, -(start % PAGE_SIZE));
  for (const page of new Set([begin, startPage])) {
    const header = new Uint8Array(64);
    const size = writePageHeader(new DataView(header.buffer), 0, identity, page, 0);
    if (page + size > start) continue; // it arrives with the WAL
    file.seekSync(page - begin, Deno.SeekMode.Start);
    writeAll(file, header.subarray(0, size));
  }
}

/** Gives a full and synced segment its complete name, durable once the directory is synced. */
export function completeSegment(directory: string, segment: number, segmentSize: number): void {
  const path = segmentPath(directory, segment, segmentSize);
  Deno.renameSync(path + PARTIAL_SUFFIX, path);
}
