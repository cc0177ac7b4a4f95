/**
 * `lazy_files.map`, the file at the root of a lazy basebackup that stands in for all relation
 * files: it says which relation forks exist at the basebackup's LSN and how long they are. The
 * pageserver writes it into the tar, the compute host lays sparse files out by it.
 *
 *   u32 magic "NLZM" | u32 version 1 | u64 lsn | u64 prev lsn | u32 PostgreSQL major | u32 count
 *   count x { u32 tablespace | u32 database | u32 relation | u32 fork | u32 blocks }
 *   u32 CRC-32C of all before                                                    little endian
 *
 * `blocks` counts the whole fork, which may span several 1 GiB segment files.
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { crc32c } from "../utils/crc32c.ts";
import { Corrupt } from "../utils/errors.ts";
import type { Lsn } from "../utils/lsn.ts";

/** Name of the file, relative to the data directory. */
export const LAZY_FILES_MAP_NAME = "lazy_files.map";

const MAGIC = 0x4d5a4c4e;
const VERSION = 1;
const HEADER_BYTES = 32;
const FORK_BYTES = 20;
const CRC_BYTES = 4;
/** PostgreSQL's highest fork number (init). */
const FORK_MAX = 3;

/** One fork of one relation, with its length in 8 KiB blocks. */
export interface LazyFork {
  readonly spc: number;
  readonly db: number;
  readonly rel: number;
  readonly fork: number;
  readonly blocks: number;
}

/** All relation forks at one LSN. */
export interface LazyFilesMap {
  /** Where the basebackup was taken: the pages to fetch are those at this LSN. */
  readonly lsn: Lsn;
  /** Start of the record that ends at `lsn`. */
  readonly prevLsn: Lsn;
  readonly pgMajor: number;
  readonly forks: readonly LazyFork[];
}

/** The file's bytes. */
export function encodeLazyFilesMap(map: LazyFilesMap): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter(
    "little",
    HEADER_BYTES + map.forks.length * FORK_BYTES + CRC_BYTES,
  );
  writer.u32(MAGIC).u32(VERSION).lsn(map.lsn).lsn(map.prevLsn);
  writer.u32(map.pgMajor).u32(map.forks.length);
  for (const { spc, db, rel, fork, blocks } of map.forks) {
    writer.u32(spc).u32(db).u32(rel).u32(fork).u32(blocks);
  }
  return writer.u32(crc32c(writer.bytes())).bytes();
}

/** The inverse. Throws Corrupt for bytes that are not such a file, whole and unchanged. */
export function decodeLazyFilesMap(bytes: Uint8Array): LazyFilesMap {
  const what = LAZY_FILES_MAP_NAME;
  const reader = new ByteReader(bytes, "little", what);
  if (reader.u32() !== MAGIC) throw new Corrupt(`Cannot read ${what}: it has no magic number`);
  const version = reader.u32();
  if (version !== VERSION) throw new Corrupt(`Cannot read ${what}: its version is ${version}`);
  const lsn = reader.lsn();
  const prevLsn = reader.lsn();
  const pgMajor = reader.u32();
  const count = reader.u32();
  if (bytes.length !== HEADER_BYTES + count * FORK_BYTES + CRC_BYTES) {
    throw new Corrupt(`Cannot read ${what}: ${bytes.length} bytes cannot hold ${count} forks`);
  }
  const body = bytes.subarray(0, bytes.length - CRC_BYTES);
  const stored = new ByteReader(bytes.subarray(body.length), "little", what).u32();
  if (crc32c(body) !== stored) throw new Corrupt(`Cannot read ${what}: its checksum is wrong`);
  const forks: LazyFork[] = [];
  for (let i = 0; i < count; i++) {
    const [spc, db, rel] = [reader.u32(), reader.u32(), reader.u32()];
    const [fork, blocks] = [reader.u32(), reader.u32()];
    if (fork > FORK_MAX) throw new Corrupt(`Cannot read ${what}: a relation has fork ${fork}`);
    forks.push({ spc, db, rel, fork, blocks });
  }
  return { lsn, prevLsn, pgMajor, forks };
}
