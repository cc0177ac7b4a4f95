/**
 * The arena as TypeScript sees it: the file that tells the preloaded library which relation files
 * are lazy and where their pages come from. Its layout is documented in library/arena.h, which
 * this file follows byte by byte: a header that never changes, settings that do (two copies and an
 * index that switches between them), the token likewise, statistics that the library counts, where
 * the WAL goes, entries, hash index, page words.
 *
 * lay_out.ts makes the arena; the compute host updates its settings and its token, and reads its
 * statistics.
 */
import { assert } from "../../libs/utils/assert.ts";
import { crc32c } from "../../libs/utils/crc32c.ts";
import { BadRequest, Corrupt } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { type ArenaWal, type ArenaWalState, decodeWal, encodeWal, WAL_BYTES } from "./arena_wal.ts";

const MAGIC = 0x415a4c4e; // "NLZA"
const VERSION = 2;
const STATIC_BYTES = 188;
const SETTINGS_INDEX_OFFSET = 192;
const TOKEN_INDEX_OFFSET = 196;
const SETTINGS_OFFSET = 256;
const SETTINGS_STRIDE = 64;
const SETTINGS_BYTES = 32;
const STATISTICS_OFFSET = 512;
const WAL_OFFSET = 576;
const TOKEN_OFFSET = 1024;
const TOKEN_STRIDE = 1024;
const TOKEN_BYTES_MAX = 1000;
const TOKEN_CRC_OFFSET = 4 + TOKEN_BYTES_MAX;
const ENTRIES_OFFSET = 4096;
const ENTRY_BYTES = 32;
const WORD_BYTES = 4;
const BOOT_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Most pages that the library asks for at once (READ_AHEAD_PAGES_MAX, arena.h). */
export const READ_AHEAD_PAGES_MAX = 128;
/** How long a read waits for an unreachable page service unless told otherwise. */
export const RETRY_SECONDS_DEFAULT = 60;

/** Where pages come from. */
export interface PageServiceAddress {
  /** Numeric IPv4: the library resolves no names. */
  readonly host: string;
  readonly port: number;
}

/** What may change while Postgres runs. */
interface ArenaSettings {
  readonly pageserver: PageServiceAddress;
  /** Any position up to the flushed one; not below `notModifiedSince`. */
  readonly requestLsn: Lsn;
  /** The LSN that Postgres was started at: absent pages are as of then. */
  readonly notModifiedSince: Lsn;
  /** Seconds until a read that cannot reach the page service fails with EIO. */
  readonly retrySeconds: number;
  /** 1 to READ_AHEAD_PAGES_MAX. */
  readonly readAheadPages: number;
}

/** One segment file with pages that may be absent. */
export interface ArenaFile {
  readonly spc: number;
  readonly db: number;
  readonly rel: number;
  readonly fork: number;
  /** The fork whose pages to ask for: an unlogged relation's main fork starts as its init fork. */
  readonly sourceFork: number;
  readonly segment: number;
  /** 1 to RELATION_SEGMENT_PAGES. */
  readonly pages: number;
}

/** Everything in a new arena. */
interface ArenaContents {
  readonly bootId: string;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly settings: ArenaSettings;
  /** For a page service that wants one. */
  readonly token?: string | undefined;
  /** Of a Postgres that writes. */
  readonly wal?: ArenaWal | undefined;
  readonly files: readonly ArenaFile[];
}

/** Counters of the library, over all processes since the arena was made. */
export interface ArenaStatistics {
  /** Requests for a run of pages. */
  readonly fetchCalls: number;
  readonly pagesFetched: number;
  /** Times a process waited for another's claim on a page. */
  readonly waits: number;
  /** Claims of dead processes that were taken over. */
  readonly steals: number;
  /** Reads that failed with EIO. */
  readonly errors: number;
  /** Connections lost or refused. */
  readonly reconnects: number;
  /** Absent pages that were overwritten unread. */
  readonly absentWrites: number;
  /** Times a file with absent pages was shortened or removed. */
  readonly truncations: number;
}

/** Bytes of an arena: `written` from its start, the rest (all pages absent) are zeros. */
interface EncodedArena {
  readonly written: Uint8Array<ArrayBuffer>;
  readonly totalBytes: number;
}

function ipv4Bytes(host: string): number[] {
  const parts = host.split(".").map((part) => /^\d{1,3}$/.test(part) ? Number(part) : 256);
  if (parts.length !== 4 || parts.some((part) => part > 255)) {
    throw new BadRequest(`Cannot fetch pages from "${host}": it is not a numeric IPv4 address`);
  }
  return parts;
}

function encodeSettings(settings: ArenaSettings): Uint8Array<ArrayBuffer> {
  const { pageserver, requestLsn, notModifiedSince, retrySeconds, readAheadPages } = settings;
  if (requestLsn < notModifiedSince) {
    throw new BadRequest("Cannot set up lazy files: the request LSN is before the start LSN");
  }
  assert(
    readAheadPages >= 1 && readAheadPages <= READ_AHEAD_PAGES_MAX && retrySeconds >= 0,
    "settings of lazy files are in range",
  );
  const bytes = new Uint8Array(SETTINGS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, lsnLow(requestLsn), true);
  view.setUint32(4, lsnHigh(requestLsn), true);
  view.setUint32(8, lsnLow(notModifiedSince), true);
  view.setUint32(12, lsnHigh(notModifiedSince), true);
  bytes.set(ipv4Bytes(pageserver.host), 16);
  view.setUint16(20, pageserver.port, true);
  view.setUint16(22, readAheadPages, true);
  view.setUint32(24, retrySeconds, true);
  view.setUint32(28, crc32c(bytes.subarray(0, 28)), true);
  return bytes;
}

/** Throws BadRequest for a token that is too long. */
function encodeToken(token: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(token);
  if (text.length > TOKEN_BYTES_MAX) {
    throw new BadRequest(
      `Cannot use a token of ${text.length} bytes: at most ${TOKEN_BYTES_MAX} are possible`,
    );
  }
  const bytes = new Uint8Array(TOKEN_CRC_OFFSET + 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, text.length, true);
  bytes.set(text, 4);
  view.setUint32(TOKEN_CRC_OFFSET, crc32c(bytes.subarray(0, TOKEN_CRC_OFFSET)), true);
  return bytes;
}

function decodeSettings(bytes: Uint8Array, path: string): ArenaSettings {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (crc32c(bytes.subarray(0, 28)) !== view.getUint32(28, true)) {
    throw new Corrupt(`Cannot use the arena ${path}: its settings fail their checksum`);
  }
  return {
    pageserver: { host: bytes.subarray(16, 20).join("."), port: view.getUint16(20, true) },
    requestLsn: lsnFromHalves(view.getUint32(4, true), view.getUint32(0, true)),
    notModifiedSince: lsnFromHalves(view.getUint32(12, true), view.getUint32(8, true)),
    retrySeconds: view.getUint32(24, true),
    readAheadPages: view.getUint16(22, true),
  };
}

/** Over tablespace, database, relation, fork, segment; the library computes the same (lookup.c). */
function hashFile(file: ArenaFile): number {
  let hash = 0;
  for (const field of [file.spc, file.db, file.rel, file.fork, file.segment]) {
    hash = Math.imul(hash ^ field, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash >>> 0;
}

/** A power of two that is at least twice the number of files: probes stay short. */
function hashSlots(files: number): number {
  let slots = 16;
  while (slots < files * 2) slots *= 2;
  return slots;
}

/** Lays out a new arena. Throws BadRequest for a boot id, address or LSN that cannot be used. */
export function encodeArena(contents: ArenaContents): EncodedArena {
  const { files } = contents;
  if (!BOOT_ID.test(contents.bootId)) {
    throw new BadRequest(`Cannot use "${contents.bootId}" as a boot id`);
  }
  const slots = hashSlots(files.length);
  const hashOffset = ENTRIES_OFFSET + files.length * ENTRY_BYTES;
  const wordsOffset = hashOffset + slots * WORD_BYTES;
  const written = new Uint8Array(wordsOffset);
  const view = new DataView(written.buffer);
  let firstWord = 0;
  for (const [index, file] of files.entries()) {
    const at = ENTRIES_OFFSET + index * ENTRY_BYTES;
    view.setUint32(at, file.spc, true);
    view.setUint32(at + 4, file.db, true);
    view.setUint32(at + 8, file.rel, true);
    view.setUint16(at + 12, file.fork, true);
    view.setUint16(at + 14, file.sourceFork, true);
    view.setUint32(at + 16, file.segment, true);
    view.setUint32(at + 20, file.pages, true); // base
    view.setUint32(at + 24, file.pages, true);
    view.setUint32(at + 28, firstWord, true);
    firstWord += file.pages;
    let slot = hashFile(file) & (slots - 1);
    while (view.getUint32(hashOffset + slot * WORD_BYTES, true) !== 0) {
      slot = (slot + 1) & (slots - 1);
    }
    view.setUint32(hashOffset + slot * WORD_BYTES, index + 1, true);
  }
  assert(firstWord < 2 ** 32, "page words are numbered by 32 bits");
  const totalBytes = wordsOffset + firstWord * WORD_BYTES;
  writeHeader(view, contents, { slots, hashOffset, wordsOffset, totalBytes });
  return { written, totalBytes };
}

function writeHeader(
  view: DataView<ArrayBuffer>,
  contents: ArenaContents,
  layout: { slots: number; hashOffset: number; wordsOffset: number; totalBytes: number },
): void {
  const bytes = new Uint8Array(view.buffer);
  const encoder = new TextEncoder();
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, contents.files.length, true);
  view.setUint32(12, layout.slots, true);
  view.setBigUint64(16, BigInt(ENTRIES_OFFSET), true);
  view.setBigUint64(24, BigInt(layout.hashOffset), true);
  view.setBigUint64(32, BigInt(layout.wordsOffset), true);
  view.setBigUint64(40, BigInt(layout.totalBytes), true);
  encoder.encodeInto(contents.bootId, bytes.subarray(48, 88));
  encoder.encodeInto(contents.tenantId, bytes.subarray(88, 128));
  encoder.encodeInto(contents.timelineId, bytes.subarray(128, 168));
  view.setUint32(STATIC_BYTES, crc32c(bytes.subarray(0, STATIC_BYTES)), true);
  bytes.set(encodeSettings(contents.settings), SETTINGS_OFFSET);
  bytes.set(encodeWal(contents.wal), WAL_OFFSET);
  if (contents.token !== undefined) bytes.set(encodeToken(contents.token), TOKEN_OFFSET);
}

function readAt(file: Deno.FsFile, offset: number, length: number, path: string): Uint8Array {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let at = 0; at < length;) {
    const count = file.readSync(bytes.subarray(at));
    if (count === null) throw new Corrupt(`Cannot use the arena ${path}: it is too short`);
    at += count;
  }
  return bytes;
}

function writeAt(file: Deno.FsFile, offset: number, bytes: Uint8Array): void {
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

/** Opens an arena and checks what never changes in it. */
function openArena(path: string, write: boolean): Deno.FsFile {
  const file = Deno.openSync(path, { read: true, write });
  try {
    const header = readAt(file, 0, STATIC_BYTES + WORD_BYTES, path);
    const view = new DataView(header.buffer);
    if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) {
      throw new Corrupt(`Cannot use the arena ${path}: it is not one of this version`);
    }
    if (crc32c(header.subarray(0, STATIC_BYTES)) !== view.getUint32(STATIC_BYTES, true)) {
      throw new Corrupt(`Cannot use the arena ${path}: its header fails its checksum`);
    }
    return file;
  } catch (thrown) {
    file.close();
    throw thrown;
  }
}

function readSettings(
  file: Deno.FsFile,
  path: string,
): { index: number; settings: ArenaSettings } {
  const index = readAt(file, SETTINGS_INDEX_OFFSET, 1, path)[0]! & 1;
  const at = SETTINGS_OFFSET + index * SETTINGS_STRIDE;
  return { index, settings: decodeSettings(readAt(file, at, SETTINGS_BYTES, path), path) };
}

/**
 * Changes settings of an arena in use; fetches that start afterwards go by them. One writer at a
 * time. Returns the settings now in force. Throws Corrupt if the file is not a whole arena,
 * BadRequest as encodeArena does.
 */
export function updateArena(path: string, changes: Partial<ArenaSettings>): ArenaSettings {
  using file = openArena(path, true);
  const { index, settings } = readSettings(file, path);
  const changed = { ...settings, ...changes };
  const idle = 1 - index;
  writeAt(file, SETTINGS_OFFSET + idle * SETTINGS_STRIDE, encodeSettings(changed));
  writeAt(file, SETTINGS_INDEX_OFFSET, new Uint8Array([idle]));
  return changed;
}

/**
 * Gives an arena in use another token; connections made afterwards show it. Throws as updateArena
 * does.
 */
export function updateArenaToken(path: string, token: string): void {
  using file = openArena(path, true);
  const idle = 1 - (readAt(file, TOKEN_INDEX_OFFSET, 1, path)[0]! & 1);
  writeAt(file, TOKEN_OFFSET + idle * TOKEN_STRIDE, encodeToken(token));
  writeAt(file, TOKEN_INDEX_OFFSET, new Uint8Array([idle]));
}

/** The settings in force. Throws Corrupt if the file is not a whole arena. */
export function readArenaSettings(path: string): ArenaSettings {
  using file = openArena(path, false);
  return readSettings(file, path).settings;
}

/** Throws Corrupt if the file is not a whole arena. */
export function readArenaWal(path: string): ArenaWalState {
  using file = openArena(path, false);
  return decodeWal(readAt(file, WAL_OFFSET, WAL_BYTES, path), path);
}

/** What the arena says of one segment file. */
export interface ArenaFilePages {
  /** Pages from here on are in the local file alone. */
  readonly base: number;
  /** A word for each page below: WORD_WRITTEN for one that Postgres wrote. */
  readonly words: Uint32Array;
}

/** The word of a page that Postgres has written (DIRTY, arena.h). */
export const WORD_WRITTEN = 2;

/** The word of a page that was fetched (CLEAN, arena.h). */
const WORD_FETCHED = 1;

/** Key of arenaFilesOfFork. */
export function arenaFileKey(spc: number, db: number, rel: number, segment: number): string {
  return `${spc}/${db}/${rel}/${segment}`;
}

/** A lazy file, and where its page words are. */
interface ArenaEntry {
  readonly file: ArenaFile;
  readonly base: number;
  readonly wordsAt: number;
}

function* entriesOf(arena: Deno.FsFile, path: string): Generator<ArenaEntry> {
  const header = new DataView(readAt(arena, 0, STATIC_BYTES, path).buffer);
  const entries = readAt(arena, ENTRIES_OFFSET, header.getUint32(8, true) * ENTRY_BYTES, path);
  const view = new DataView(entries.buffer);
  const wordsOffset = Number(header.getBigUint64(32, true));
  for (let at = 0; at < entries.length; at += ENTRY_BYTES) {
    const u32 = (offset: number) => view.getUint32(at + offset, true);
    const file = {
      ...{ spc: u32(0), db: u32(4), rel: u32(8), segment: u32(16), pages: u32(24) },
      fork: view.getUint16(at + 12, true),
      sourceFork: view.getUint16(at + 14, true),
    };
    yield { file, base: u32(20), wordsAt: wordsOffset + u32(28) * WORD_BYTES };
  }
}

function readWords(arena: Deno.FsFile, { base, wordsAt }: ArenaEntry, path: string): Uint32Array {
  return new Uint32Array(readAt(arena, wordsAt, base * WORD_BYTES, path).buffer);
}

/** The pages of all files of a fork, by arenaFileKey. Throws Corrupt if it is no whole arena. */
export function arenaFilesOfFork(path: string, fork: number): Map<string, ArenaFilePages> {
  using arena = openArena(path, false);
  const found = new Map<string, ArenaFilePages>();
  for (const entry of entriesOf(arena, path)) {
    const { spc, db, rel, segment } = entry.file;
    if (entry.file.fork !== fork) continue;
    const words = readWords(arena, entry, path);
    found.set(arenaFileKey(spc, db, rel, segment), { base: entry.base, words });
  }
  return found;
}

/** Consecutive pages of a lazy file. */
export interface ArenaRun {
  readonly file: ArenaFile;
  readonly first: number;
  readonly pages: number;
}

/** The pages that have been fetched or written, of the files that `isWanted` names. */
export function presentRuns(path: string, isWanted: (file: ArenaFile) => boolean): ArenaRun[] {
  using arena = openArena(path, false);
  const runs: ArenaRun[] = [];
  for (const entry of entriesOf(arena, path)) {
    if (!isWanted(entry.file)) continue;
    const words = readWords(arena, entry, path);
    const isThere = (page: number) => words[page] === WORD_FETCHED || words[page] === WORD_WRITTEN;
    for (let first = 0; first < words.length; first++) {
      let end = first;
      while (end < words.length && isThere(end)) end++;
      if (end > first) runs.push({ file: entry.file, first, pages: end - first });
      first = end;
    }
  }
  return runs;
}

/**
 * Says that pages have been fetched, which lie in their files already. Only while no process has
 * the arena mapped: nothing is claimed.
 */
export function markFetched(path: string, runs: readonly ArenaRun[]): void {
  using arena = openArena(path, true);
  const wanted = Map.groupBy(runs, ({ file }) => fileKey(file));
  for (const { file, base, wordsAt } of entriesOf(arena, path)) {
    for (const { first, pages } of wanted.get(fileKey(file)) ?? []) {
      assert(first + pages <= base, "fetched pages are in their file");
      const words = new Uint8Array(pages * WORD_BYTES);
      for (let at = 0; at < words.length; at += WORD_BYTES) words[at] = WORD_FETCHED;
      writeAt(arena, wordsAt + first * WORD_BYTES, words);
    }
  }
}

function fileKey({ spc, db, rel, fork, segment }: ArenaFile): string {
  return `${arenaFileKey(spc, db, rel, segment)}/${fork}`;
}

/** The library's counters. Throws Corrupt if the file is not a whole arena. */
export function readArenaStatistics(path: string): ArenaStatistics {
  using file = openArena(path, false);
  const bytes = readAt(file, STATISTICS_OFFSET, 64, path);
  const view = new DataView(bytes.buffer);
  const counter = (index: number) => Number(view.getBigUint64(index * 8, true));
  return {
    fetchCalls: counter(0),
    pagesFetched: counter(1),
    waits: counter(2),
    steals: counter(3),
    errors: counter(4),
    reconnects: counter(5),
    absentWrites: counter(6),
    truncations: counter(7),
  };
}
