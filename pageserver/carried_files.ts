/**
 * Files that PostgreSQL keeps outside its WAL (libs/basebackup/carried_files.ts), as values of the
 * key classes 62 (not inherited by branches: logical slots and what belongs to them) and 67
 * (inherited: statistics).
 *
 *   key    class | u32 kind | u32, u32, 0, u32: LSN of a snapshot, else from SHA-256 of the path
 *   value  u8 version 1 | u16 path bytes | path | content                          little endian
 */
import { createHash } from "node:crypto";
import { type CarriedKind, carriedKind, snapshotLsn } from "../libs/basebackup/carried_files.ts";
import { ByteReader, ByteWriter } from "../libs/utils/bytes.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { type Lsn, lsnHigh, lsnLow } from "../libs/utils/lsn.ts";
import { type Key, KeyClass, makeKey } from "./repository/key.ts";
import type { Timeline } from "./repository/timeline.ts";

const VERSION = 1;
const U32_MAX = 0xffffffff;
const KIND_NUMBER: Record<CarriedKind, number> = {
  statistics: 1,
  slot: 2,
  snapshot: 3,
  mapping: 4,
};

/** One file. */
interface CarriedFile {
  readonly path: string;
  readonly kind: CarriedKind;
  readonly content: Uint8Array;
}

/** The key of a file that is carried. */
export function carriedFileKey(path: string, kind: CarriedKind): Key {
  const keyClass = kind === "statistics" ? KeyClass.inheritedFile : KeyClass.auxFile;
  if (kind === "snapshot") {
    // One that no name of an object is spent on: a busy slot has many, one after the other
    const lsn = snapshotLsn(path);
    return makeKey(keyClass, KIND_NUMBER[kind], 0, lsnHigh(lsn), 0, lsnLow(lsn));
  }
  const hash = new ByteReader(createHash("sha256").update(path).digest(), "big", "a hash");
  return makeKey(keyClass, KIND_NUMBER[kind], hash.u32(), hash.u32(), 0, hash.u32());
}

/** The stored form of a file. */
export function encodeCarriedFile(path: string, content: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(path);
  const writer = new ByteWriter("little", 3 + name.length + content.length);
  return writer.u8(VERSION).u16(name.length).raw(name).raw(content).bytes();
}

function decodeCarriedFile(bytes: Uint8Array): { path: string; content: Uint8Array } {
  const reader = new ByteReader(bytes, "little", "a carried file");
  const version = reader.u8();
  if (version !== VERSION) {
    throw new Corrupt(`Cannot read a carried file: its version is ${version}`);
  }
  const path = new TextDecoder().decode(reader.raw(reader.u16()));
  return { path, content: reader.raw(reader.remaining) };
}

/** Content of one file at `lsn`; undefined if there is none. */
export function carriedFile(
  timeline: Timeline,
  path: string,
  kind: CarriedKind,
  lsn: Lsn,
): Uint8Array | undefined {
  const value = timeline.getValue(carriedFileKey(path, kind), lsn);
  return value === undefined ? undefined : decodeCarriedFile(value).content;
}

/** All files of the timeline at `lsn`. */
export function carriedFiles(timeline: Timeline, lsn: Lsn): CarriedFile[] {
  const found: CarriedFile[] = [];
  for (const keyClass of [KeyClass.inheritedFile, KeyClass.auxFile]) {
    const end = makeKey(keyClass, U32_MAX, U32_MAX, U32_MAX, 255, U32_MAX);
    timeline.scan(makeKey(keyClass, 0, 0, 0, 0, 0), end, lsn, (_key, value) => {
      const { path, content } = decodeCarriedFile(value);
      const kind = carriedKind(path);
      if (kind !== undefined) found.push({ path, kind, content });
    });
  }
  return found;
}
