/**
 * The key space: what the pageserver stores versions of.
 *
 * A key is 18 bytes, six big-endian fields, so that byte order is sort order and the blocks of one
 * fork are neighbours:
 *
 *   f1 u8 | f2 u32 | f3 u32 | f4 u32 | f5 u8 | f6 u32
 *
 *   00 spc db rel fork block      block of a relation fork (PostgreSQL's forks 0 main .. 3 init)
 *   00 spc db 0 0 0               relation map file (pg_filenode.map)
 *   01 kind 1 segno 0 block       block of an SLRU segment (kinds: libs/postgres/slru.ts)
 *   02 0 0 xid>>40 xid>>32 xid    two-phase state file
 *   03 0 0 0 0 0                  control file of the imported cluster
 *   03 0 0 0 0 1                  state of the checkpoint tracker
 *   04 xid>>32 part 0 0 xid       AccessExclusive locks that a transaction took
 *   05 0 0 0 0 0                  first mark of a second with commits (commit_marks.ts)
 *   05 1 0 0 0 second             marks of its commits
 *   61 spc db rel fork 0          blocks in a relation fork, u32 LE
 *   62 kind .. .. 0 ..            carried files        (not inherited by branches)
 *   63 0 0 0 0 id                 replication origin's progress, u64 (not inherited by branches)
 *   64 spc db 0 0 0               database directory, flags byte
 *   66 kind segno 0 0 0           blocks in an SLRU segment, u32 LE
 *   67 kind .. .. 0 ..            carried files that branches inherit (carried_files.ts)
 *
 * Example: block 7 of base/5/1259 is 00 0000067F 00000005 000004EB 00 00000007. Every class from 02
 * up can be range-scanned and takes tombstones; classes 00 and 01 are read by exact key.
 *
 * Cold paths pass Key objects. Hot paths intern (f1..f5) once into a small integer, the ObjectId
 * (see key_interner.ts), and pass it with the block number.
 */
import { SLRU_DIRECTORIES } from "../../libs/postgres/slru.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { decodeHex } from "../../libs/utils/hex.ts";

/** The six fields. Invariant: f1, f5 < 2^8; the others < 2^32; all unsigned. */
export interface Key {
  f1: number;
  f2: number;
  f3: number;
  f4: number;
  f5: number;
  f6: number;
}

/** Values of the first field. */
export const KeyClass = {
  relation: 0x00,
  slru: 0x01,
  twophase: 0x02,
  control: 0x03,
  standbyLock: 0x04,
  commitMark: 0x05,
  relationSize: 0x61,
  auxFile: 0x62,
  replicationOrigin: 0x63,
  database: 0x64,
  slruSize: 0x66,
  inheritedFile: 0x67,
} as const;

/** Bytes of an encoded key. */
export const KEY_BYTES = 18;

const TWO_32 = 4294967296;

/** A key from its fields. */
export function makeKey(
  f1: number,
  f2: number,
  f3: number,
  f4: number,
  f5: number,
  f6: number,
): Key {
  return { f1, f2, f3, f4, f5, f6 };
}

/** The relation map file of a database, or of the shared catalogs (1664, 0). */
export function relmapKey(spc: number, db: number): Key {
  return makeKey(KeyClass.relation, spc, db, 0, 0, 0);
}

/** The state file of a prepared transaction; `xid` is the full 64-bit id as a safe integer. */
export function twophaseKey(xid: number): Key {
  const high = Math.floor(xid / TWO_32);
  return makeKey(KeyClass.twophase, 0, 0, Math.floor(high / 256), high % 256, xid % TWO_32);
}

/** The transaction id of a two-phase key. */
export function twophaseXid(key: Key): number {
  return (key.f4 * 256 + key.f5) * TWO_32 + key.f6;
}

/**
 * AccessExclusive locks of a transaction, by its full xid; many are in several parts. They are
 * released by the end of the transaction, so nothing is ever deleted.
 */
export function standbyLockKey(xid: number, part: number): Key {
  return makeKey(KeyClass.standbyLock, Math.floor(xid / TWO_32), part, 0, 0, xid % TWO_32);
}

/** The full transaction id of a key of locks. */
export function standbyLockXid(key: Key): number {
  return key.f2 * TWO_32 + key.f6;
}

/** The control file of the imported cluster. */
export const CONTROL_FILE_KEY: Readonly<Key> = makeKey(KeyClass.control, 0, 0, 0, 0, 0);

/** The state of the checkpoint tracker. */
export const CHECKPOINT_KEY: Readonly<Key> = makeKey(KeyClass.control, 0, 0, 0, 0, 1);

/** Its next transaction id, newer than in the state where it alone has changed. */
export const NEXT_XID_KEY: Readonly<Key> = makeKey(KeyClass.control, 0, 0, 0, 0, 2);

/** The first mark of each second that has commits. */
export const COMMIT_SECOND_KEY: Readonly<Key> = makeKey(KeyClass.commitMark, 0, 0, 0, 0, 0);

/** The marks of the commits of a second since 2000. */
export function commitMarkKey(second: number): Key {
  return makeKey(KeyClass.commitMark, 1, 0, 0, 0, second);
}

/** The size of a relation fork. */
export function relationSizeKey(spc: number, db: number, rel: number, fork: number): Key {
  return makeKey(KeyClass.relationSize, spc, db, rel, fork, 0);
}

/** The directory entry of a database. */
export function databaseKey(spc: number, db: number): Key {
  return makeKey(KeyClass.database, spc, db, 0, 0, 0);
}

/** The size of an SLRU segment. */
export function slruSizeKey(kind: number, segno: number): Key {
  return makeKey(KeyClass.slruSize, kind, segno, 0, 0, 0);
}

/** How far a replication origin was applied. */
export function replicationOriginKey(origin: number): Key {
  return makeKey(KeyClass.replicationOrigin, 0, 0, 0, 0, origin);
}

/** The origin of such a key. */
export function replicationOriginId(key: Key): number {
  return key.f6;
}

/** Whether keys of this class may be range-scanned and deleted (tombstones). */
export function isScannable(f1: number): boolean {
  return f1 >= KeyClass.twophase;
}

/** Whether a branch sees its ancestor's keys of this class. */
export function isInherited(f1: number): boolean {
  return f1 !== KeyClass.auxFile && f1 !== KeyClass.replicationOrigin;
}

/** Whether two keys differ in the block at most. */
export function isSameObject(a: Key, b: Key): boolean {
  return a.f4 === b.f4 && a.f5 === b.f5 && a.f3 === b.f3 && a.f2 === b.f2 && a.f1 === b.f1;
}

/**
 * Negative, zero or positive as `a` sorts before, at or after `b`; the order of the encoded bytes.
 */
export function compareKeys(a: Key, b: Key): number {
  return a.f1 - b.f1 || a.f2 - b.f2 || a.f3 - b.f3 || a.f4 - b.f4 || a.f5 - b.f5 || a.f6 - b.f6;
}

/** Writes the 18 bytes of `key` at `offset`. */
export function writeKey(key: Key, view: DataView, offset: number): void {
  view.setUint8(offset, key.f1);
  view.setUint32(offset + 1, key.f2);
  view.setUint32(offset + 5, key.f3);
  view.setUint32(offset + 9, key.f4);
  view.setUint8(offset + 13, key.f5);
  view.setUint32(offset + 14, key.f6);
}

/** The 18 bytes of `key`. */
export function keyToBytes(key: Key): Uint8Array {
  const bytes = new Uint8Array(KEY_BYTES);
  writeKey(key, new DataView(bytes.buffer), 0);
  return bytes;
}

/** Reads a key from 18 bytes at `offset`. Throws Corrupt if there are fewer. */
export function keyFromBytes(bytes: Uint8Array, offset = 0): Key {
  if (offset + KEY_BYTES > bytes.length) {
    throw new Corrupt(
      `Cannot read a key: ${bytes.length - offset} of ${KEY_BYTES} bytes are there`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, KEY_BYTES);
  return makeKey(
    view.getUint8(0),
    view.getUint32(1),
    view.getUint32(5),
    view.getUint32(9),
    view.getUint8(13),
    view.getUint32(14),
  );
}

function hexField(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, "0");
}

/** 36 upper-case hex digits, as in layer file names. */
export function formatKey(key: Key): string {
  return hexField(key.f1, 2) + hexField(key.f2, 8) + hexField(key.f3, 8) + hexField(key.f4, 8) +
    hexField(key.f5, 2) + hexField(key.f6, 8);
}

/** Parses 36 hex digits. Throws SyntaxError for anything else. */
export function parseKey(text: string): Key {
  if (text.length !== 2 * KEY_BYTES) {
    throw new SyntaxError(
      `Cannot parse a key (expected 36 hex digits): current value is "${text}"`,
    );
  }
  return keyFromBytes(decodeHex(text));
}

const FORK_NAMES = ["main", "fsm", "vm", "init"];

/** For messages: what the key means, for example `block 7 of relation 1663/5/1259 main`. */
export function describeKey(key: Key): string {
  const relation = `${key.f2}/${key.f3}/${key.f4} ${FORK_NAMES[key.f5] ?? `fork ${key.f5}`}`;
  const slru = SLRU_DIRECTORIES[key.f2] ?? `SLRU ${key.f2}`;
  switch (key.f1) {
    case KeyClass.relation:
      return key.f4 === 0
        ? `relation map of database ${key.f2}/${key.f3}`
        : `block ${key.f6} of relation ${relation}`;
    case KeyClass.slru:
      return `block ${key.f6} of ${slru} segment ${hexField(key.f4, 4)}`;
    case KeyClass.twophase:
      return `state file of prepared transaction ${twophaseXid(key)}`;
    case KeyClass.control:
      return ["control file", "checkpoint state", "next transaction id"][key.f6] ?? "unknown";
    case KeyClass.standbyLock:
      return `locks of transaction ${standbyLockXid(key)}`;
    case KeyClass.commitMark:
      return key.f2 === 0 ? "seconds of commits" : `commits of second ${key.f6}`;
    case KeyClass.relationSize:
      return `size of relation ${relation}`;
    case KeyClass.replicationOrigin:
      return `progress of replication origin ${key.f6}`;
    case KeyClass.database:
      return `database ${key.f2}/${key.f3}`;
    case KeyClass.slruSize:
      return `size of ${slru} segment ${hexField(key.f3, 4)}`;
    default:
      return `key ${formatKey(key)}`;
  }
}
