/**
 * Records of the Transaction resource manager that end or prepare a transaction (xact.h).
 *
 *   commit, abort (and their _PREPARED forms):
 *     time i64 | if info & 0x80: xinfo u32, then the parts it announces, in this order
 *       0x001 database u32, tablespace u32       0x002 count u32, subxact u32 each
 *       0x004 count u32, relation 12 each        0x100 count u32, statistics item 12 or 16 each
 *       0x008 count u32, invalidation 16 each    0x010 prepared xid u32, [0x080: gid, NUL]
 *       0x020 origin LSN u64, origin time i64 (unaligned)
 *   prepare (the content of a pg_twophase file but for its CRC), every part padded to 8:
 *     0 magic | 4 length | 8 xid | 12 database | 16 time i64 | 24 owner | 28 subxacts
 *     32 commit rels | 36 abort rels | [40 commit stats | 44 abort stats, from 15 on]
 *     invalidations u32
 *     initfileinval u8 | gid length u16 at +6 | origin LSN u64 | origin time i64
 *     gid | subxacts | commit rels | abort rels | commit stats | abort stats | invalidations | more
 *
 * One XactRecord is reused; like the cursor it keeps offsets, so what it says is valid until the
 * cursor moves.
 */
import { Corrupt } from "../utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../utils/lsn.ts";
import { XactInfo } from "./constants.ts";
import type { PgVersion } from "./versions.ts";
import type { RecordCursor } from "./wal/record_cursor.ts";

/** The opcode within info; the remaining bit is HAS_INFO. */
export const XACT_OPCODE_MASK = 0x70;

const HAS_INFO = 0x80;
const HAS_DATABASE = 0x001;
const HAS_SUBXACTS = 0x002;
const HAS_RELATIONS = 0x004;
const HAS_INVALIDATIONS = 0x008;
const HAS_TWO_PHASE = 0x010;
const HAS_ORIGIN = 0x020;
const HAS_GID = 0x080;
const HAS_DROPPED_STATS = 0x100;

const RELATION_BYTES = 12;
const INVALIDATION_BYTES = 16;
const decoder = new TextDecoder();

const align8 = (bytes: number): number => bytes + 7 - (bytes + 7) % 8;

/** A commit, abort or prepare record. */
export class XactRecord {
  #view: DataView = new DataView(new ArrayBuffer(0));
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;
  #lsn: Lsn = INVALID_LSN;
  #subxactsAt = 0;
  #relationsAt = 0;
  #abortRelationsAt = 0;
  #gidAt = 0;
  #gidLength = 0;

  /** One of XactInfo. */
  opcode = 0;
  /** The transaction it is about: of a prepared one the xid in the data, otherwise the record's. */
  xid = 0;
  /** Microseconds since 2000-01-01 of the end, or of the prepare. */
  time = 0;
  /** Database of the session; 0 = not recorded. */
  db = 0;
  subxactCount = 0;
  /** Relations whose files go: at commit, at abort, or for a prepare if it commits. */
  relationCount = 0;
  /** Only for a prepare: relations whose files go if it aborts. */
  abortRelationCount = 0;
  /** Offset in the cursor's bytes of a commit's time: its origin's, if it has one, else `time`. */
  commitTimeAt = 0;
  /** Where the transaction ended on its own server; 0 = it was not replicated. */
  originLsn = 0n;

  /** Reads the record under the cursor. Throws Corrupt naming its LSN if it is cut short. */
  decode(cursor: RecordCursor, version: PgVersion): void {
    this.#view = cursor.view;
    this.#bytes = cursor.bytes;
    this.#at = cursor.mainOffset;
    this.#end = cursor.mainOffset + cursor.mainLength;
    this.#lsn = cursor.lsn;
    this.#gidLength = 0;
    this.opcode = cursor.info & XACT_OPCODE_MASK;
    this.xid = cursor.xid;
    this.db = 0;
    this.subxactCount = 0;
    this.relationCount = 0;
    this.abortRelationCount = 0;
    this.originLsn = 0n;
    if (this.opcode === XactInfo.PREPARE) this.#decodePrepare(version);
    else this.#decodeEnd(cursor.info, version);
  }

  /** Reads the main data of a PREPARE record, as two-phase state is kept. Throws Corrupt. */
  decodePrepared(main: Uint8Array, version: PgVersion): void {
    this.#bytes = main;
    this.#view = new DataView(main.buffer, main.byteOffset, main.length);
    this.#at = 0;
    this.#end = main.length;
    this.#lsn = INVALID_LSN;
    this.opcode = XactInfo.PREPARE;
    this.#decodePrepare(version);
  }

  /** Xid of the i-th subtransaction. */
  subxact(i: number): number {
    return this.#view.getUint32(this.#subxactsAt + 4 * i, true);
  }

  /** Tablespace of the i-th relation to go. */
  relationSpc(i: number): number {
    return this.#view.getUint32(this.#relationsAt + RELATION_BYTES * i, true);
  }

  /** Database of the i-th relation to go. */
  relationDb(i: number): number {
    return this.#view.getUint32(this.#relationsAt + RELATION_BYTES * i + 4, true);
  }

  /** Relfilenode of the i-th relation to go. */
  relationRel(i: number): number {
    return this.#view.getUint32(this.#relationsAt + RELATION_BYTES * i + 8, true);
  }

  /** Tablespace, database and relfilenode of the i-th relation to go if the prepared one aborts. */
  abortRelation(i: number): [spc: number, db: number, rel: number] {
    const at = this.#abortRelationsAt + RELATION_BYTES * i;
    return [0, 4, 8].map((part) => this.#view.getUint32(at + part, true)) as [
      number,
      number,
      number,
    ];
  }

  /** Global identifier of a prepared transaction; empty where the record has none. */
  gid(): string {
    return decoder.decode(this.#bytes.subarray(this.#gidAt, this.#gidAt + this.#gidLength));
  }

  #decodeEnd(info: number, version: PgVersion): void {
    this.commitTimeAt = this.#take(8);
    this.time = this.#time(this.commitTimeAt);
    const parts = (info & HAS_INFO) !== 0 ? this.#u32() : 0;
    if ((parts & HAS_DATABASE) !== 0) this.db = this.#view.getUint32(this.#take(8), true);
    if ((parts & HAS_SUBXACTS) !== 0) {
      this.subxactCount = this.#u32();
      this.#subxactsAt = this.#take(4 * this.subxactCount);
    }
    if ((parts & HAS_RELATIONS) !== 0) {
      this.relationCount = this.#u32();
      this.#relationsAt = this.#take(RELATION_BYTES * this.relationCount);
    }
    if ((parts & HAS_DROPPED_STATS) !== 0) this.#take(version.statsItemBytes * this.#u32());
    if ((parts & HAS_INVALIDATIONS) !== 0) this.#take(INVALIDATION_BYTES * this.#u32());
    if ((parts & HAS_TWO_PHASE) !== 0) {
      this.xid = this.#u32();
      if ((parts & HAS_GID) !== 0) this.#takeGid();
    }
    if ((parts & HAS_ORIGIN) === 0) return;
    const origin = this.#take(16);
    this.originLsn = this.#view.getBigUint64(origin, true);
    this.commitTimeAt = origin + 8;
  }

  #takeGid(): void {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0 || end >= this.#end) this.#fail();
    this.#gidAt = this.#at;
    this.#gidLength = end - this.#at;
    this.#at = end + 1;
  }

  #decodePrepare(version: PgVersion): void {
    const withStats = version.statsItemBytes > 0;
    const start = this.#take(withStats ? 72 : 64);
    const rest = start + (withStats ? 48 : 40);
    const u32 = (at: number) => this.#view.getUint32(start + at, true);
    this.xid = u32(8);
    this.db = u32(12);
    this.time = this.#time(start + 16);
    this.subxactCount = u32(28);
    this.relationCount = u32(32);
    this.abortRelationCount = u32(36);
    const gidLength = this.#view.getUint16(rest + 6, true);
    this.originLsn = this.#view.getBigUint64(rest + 8, true);
    this.#gidAt = this.#take(align8(gidLength));
    this.#gidLength = Math.max(gidLength - 1, 0); // it is stored with its NUL
    this.#subxactsAt = this.#take(align8(4 * this.subxactCount));
    this.#relationsAt = this.#take(align8(RELATION_BYTES * this.relationCount));
    this.#abortRelationsAt = this.#take(align8(RELATION_BYTES * this.abortRelationCount));
  }

  /** Moves over `count` bytes and returns where they start. */
  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#end) this.#fail();
    this.#at = at + count;
    return at;
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** A TimestampTz: below 2^53 for the next two centuries. */
  #time(at: number): number {
    return this.#view.getInt32(at + 4, true) * 4294967296 + this.#view.getUint32(at, true);
  }

  #fail(): never {
    throw new Corrupt(
      `Cannot read the transaction record at ${formatLsn(this.#lsn)}: it is cut short`,
    );
  }
}
