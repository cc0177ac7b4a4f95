/**
 * The supported major versions of PostgreSQL, 14 to 18, as one table of data.
 *
 * Everything that differs between them in a format that this program reads or writes is a field
 * here; code asks the field ("does a CheckPoint carry wal_level?"), never the version number.
 * Formats that changed inside a major version (17.11 registers visibility map pages as block
 * references) need no field: those records describe themselves.
 */
import { BadRequest } from "../utils/errors.ts";

/** A supported major version. */
type PgMajor = 14 | 15 | 16 | 17 | 18;

/** What is particular to the formats of one major version. */
export interface PgVersion {
  readonly major: PgMajor;
  /** CATALOG_VERSION_NO (catversion.h). */
  readonly catalogVersion: number;
  /** PG_CONTROL_VERSION (pg_control.h). */
  readonly controlVersion: number;
  /** XLOG_PAGE_MAGIC (xlog_internal.h), the first two bytes of every WAL page. */
  readonly walPageMagic: number;
  /** Directory below a tablespace's location, for example "PG_17_202406281". */
  readonly catalogDirectory: string;
  /** Whether a CheckPoint has wal_level at offset 20 (17 and later). */
  readonly checkPointHasWalLevel: boolean;
  /** Offset of the CRC in pg_control; all bytes before it are covered. */
  readonly controlCrcOffset: number;
  /** Offset of the 32 byte mock authentication nonce in pg_control. */
  readonly controlNonceOffset: number;
  /** Whether pg_control has default_char_signedness at offset 256 (18). */
  readonly controlHasCharSignedness: boolean;
  /** Whether initdb turns data checksums on unless told otherwise (18). */
  readonly initdbHasChecksums: boolean;
  /** Bits of bimg_info in a page image's header (xlogrecord.h). A method of 0 does not exist. */
  readonly imageHasHole: number;
  readonly imageApply: number;
  readonly imagePglz: number;
  readonly imageLz4: number;
  readonly imageZstd: number;
  /** All compression bits together. */
  readonly imageCompressed: number;
  /** Hex digits of a pg_twophase file name: 8 (xid), or 16 (epoch and xid) from 17 on. */
  readonly twoPhaseNameDigits: 8 | 16;
  /** Width in bytes of an SLRU page number in clog, commit_ts and multixact records. */
  readonly slruPageNumberBytes: 4 | 8;
  /** Size of a dropped statistics item in commit, abort and prepare records; 0 = there are none. */
  readonly statsItemBytes: 0 | 12 | 16;
  /** Opcodes of the Database resource manager; -1 = does not exist (dbcommands_xlog.h). */
  readonly dbaseCreateWalLog: number;
  readonly dbaseDrop: number;
  /** Entries of a relation map file, which is 12 bytes plus 8 per entry (relmapper.c). */
  readonly relMapEntries: 62 | 64;
  /** Size of a relation map file: 512 (with 4 bytes of padding) or 524. */
  readonly relMapFileBytes: 512 | 524;
  /** How Heap2 records of pruning, vacuum's second pass and freezing look (heapam_xlog.h). */
  readonly heapCleanup: HeapCleanup;
}

/** See PgVersion.heapCleanup. */
interface HeapCleanup {
  /** One format for opcodes 0x10 to 0x30 (17 and later), or PRUNE, VACUUM and FREEZE_PAGE. */
  readonly oneFormat: boolean;
  /** Whether tuples that are frozen alike share a plan (16 and later), or have one each. */
  readonly sharedFreezePlans: boolean;
  /** Whether pruning gives back unused line pointers at the end of a page (15 and later). */
  readonly pruneTruncates: boolean;
}

const imagesSince15 = {
  imageHasHole: 0x01,
  imageApply: 0x02,
  imagePglz: 0x04,
  imageLz4: 0x08,
  imageZstd: 0x10,
  imageCompressed: 0x1c,
};

const controlUntil17 = {
  checkPointHasWalLevel: false,
  controlCrcOffset: 288,
  controlNonceOffset: 256,
  controlHasCharSignedness: false,
  initdbHasChecksums: false,
};

const namesUntil16 = { twoPhaseNameDigits: 8, slruPageNumberBytes: 4 } as const;
const namesSince17 = { twoPhaseNameDigits: 16, slruPageNumberBytes: 8 } as const;
const relMapUntil15 = { relMapEntries: 62, relMapFileBytes: 512 } as const;
const relMapSince16 = { relMapEntries: 64, relMapFileBytes: 524 } as const;
const cleanupOf14 = { oneFormat: false, sharedFreezePlans: false, pruneTruncates: false };
const dbaseSince15 = { dbaseCreateWalLog: 0x10, dbaseDrop: 0x20 };

const PG14: PgVersion = {
  major: 14,
  catalogVersion: 202107181,
  controlVersion: 1300,
  walPageMagic: 0xd10d,
  catalogDirectory: "PG_14_202107181",
  ...controlUntil17,
  imageHasHole: 0x01,
  imageApply: 0x04,
  imagePglz: 0x02,
  imageLz4: 0,
  imageZstd: 0,
  imageCompressed: 0x02,
  ...namesUntil16,
  statsItemBytes: 0,
  dbaseCreateWalLog: -1,
  dbaseDrop: 0x10,
  ...relMapUntil15,
  heapCleanup: cleanupOf14,
};

const PG15: PgVersion = {
  major: 15,
  catalogVersion: 202209061,
  controlVersion: 1300,
  walPageMagic: 0xd110,
  catalogDirectory: "PG_15_202209061",
  ...controlUntil17,
  ...imagesSince15,
  ...namesUntil16,
  statsItemBytes: 12,
  ...dbaseSince15,
  ...relMapUntil15,
  heapCleanup: { ...cleanupOf14, pruneTruncates: true },
};

const PG16: PgVersion = {
  ...PG15,
  major: 16,
  catalogVersion: 202307071,
  walPageMagic: 0xd113,
  catalogDirectory: "PG_16_202307071",
  ...relMapSince16,
  heapCleanup: { ...PG15.heapCleanup, sharedFreezePlans: true },
};

const PG17: PgVersion = {
  ...PG16,
  major: 17,
  catalogVersion: 202406281,
  controlVersion: 1700,
  walPageMagic: 0xd116,
  catalogDirectory: "PG_17_202406281",
  checkPointHasWalLevel: true,
  ...namesSince17,
  heapCleanup: { ...PG16.heapCleanup, oneFormat: true },
};

const PG18: PgVersion = {
  ...PG17,
  major: 18,
  catalogVersion: 202506291,
  controlVersion: 1800,
  walPageMagic: 0xd118,
  catalogDirectory: "PG_18_202506291",
  controlCrcOffset: 292,
  controlNonceOffset: 257,
  controlHasCharSignedness: true,
  initdbHasChecksums: true,
  statsItemBytes: 16,
};

/** All supported versions, oldest first. */
export const PG_VERSIONS: readonly PgVersion[] = [PG14, PG15, PG16, PG17, PG18];

/** The formats of a major version. Throws BadRequest for one that is not supported. */
export function pgVersion(major: number): PgVersion {
  const found = PG_VERSIONS.find((version) => version.major === major);
  if (found === undefined) {
    throw new BadRequest(
      `Cannot use PostgreSQL ${major}: supported major versions are 14, 15, 16, 17 and 18`,
    );
  }
  return found;
}
