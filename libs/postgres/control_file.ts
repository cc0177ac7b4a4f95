/**
 * `global/pg_control` (ControlFileData, pg_control.h): 8192 bytes of which about 296 are used.
 *
 *   0 system id u64 | 8 control version | 12 catalog version | 16 state | 24 time i64
 *   32 checkPoint u64 | 40 CheckPoint copy (88) | 128 unloggedLSN u64
 *   136 minRecoveryPoint u64 | 144 its timeline
 *   152 backupStart u64 | 160 backupEnd u64 | 168 backupEndRequired u8
 *   172 wal_level | 176 wal_log_hints u8 | 180 max_connections | 184 worker processes
 *   188 wal senders | 192 prepared | 196 locks | 200 track_commit_timestamp u8
 *   204 maxAlign | 208 1234567.0 f64 | 216 block size | 220 relation segment | 224 WAL page
 *   228 WAL segment | 232 name length | 236 index keys | 240 toast chunk | 244 large object
 *   248 float8ByVal u8 | 252 checksum version | nonce 32 bytes | CRC-32C of all before
 *
 * Nonce and CRC are where the version table says; 18 has the char signedness at 256.
 */
import { crc32c } from "../utils/crc32c.ts";
import { BadRequest, Corrupt } from "../utils/errors.ts";
import { INVALID_LSN, type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../utils/lsn.ts";
import {
  type CheckPoint,
  CHECKPOINT_SIZE,
  decodeCheckPoint,
  encodeCheckPoint,
} from "./checkpoint.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES, WAL_TIMELINE_ID } from "./constants.ts";
import { PG_VERSIONS, type PgVersion } from "./versions.ts";

/** Size of the file. */
export const CONTROL_FILE_SIZE = 8192;

/** Bytes of the mock authentication nonce. */
export const NONCE_SIZE = 32;

/** DBState (pg_control.h). */
export const DbState = {
  STARTUP: 0,
  SHUT_DOWN: 1,
  SHUT_DOWN_IN_RECOVERY: 2,
  SHUTTING_DOWN: 3,
  IN_CRASH_RECOVERY: 4,
  IN_ARCHIVE_RECOVERY: 5,
  IN_PRODUCTION: 6,
} as const;

/** Settings that WAL depends on; changed by PARAMETER_CHANGE records. */
export interface WalParameters {
  walLevel: number;
  walLogHints: boolean;
  maxConnections: number;
  maxWorkerProcesses: number;
  maxWalSenders: number;
  maxPreparedTransactions: number;
  maxLocksPerTransaction: number;
  trackCommitTimestamp: boolean;
}

/** The decoded file. */
export interface ControlFile {
  version: PgVersion;
  systemId: bigint;
  /** One of DbState. */
  state: number;
  /** Seconds since 1970 of the last update. */
  time: number;
  /** Start of the last checkpoint's record. */
  checkPointLsn: Lsn;
  checkPoint: CheckPoint;
  unloggedLsn: Lsn;
  minRecoveryPoint: Lsn;
  minRecoveryPointTimelineId: number;
  backupStartPoint: Lsn;
  backupEndPoint: Lsn;
  backupEndRequired: boolean;
  parameters: WalParameters;
  walSegmentSize: number;
  /** 0 = data pages carry no checksums. */
  dataChecksumVersion: number;
  /** 18 and later; true on x64. */
  defaultCharSigned: boolean;
  nonce: Uint8Array;
}

/** [offset, value] of what every build that we support has in common. */
const BUILD_FIELDS: readonly (readonly [number, number, string])[] = [
  [204, 8, "maximum alignment"],
  [216, PAGE_SIZE, "block size"],
  [220, RELATION_SEGMENT_PAGES, "relation segment size"],
  [224, PAGE_SIZE, "WAL block size"],
  [232, 64, "name length"],
  [236, 32, "index keys"],
  [240, 1996, "TOAST chunk size"],
  [244, 2048, "large object chunk size"],
];

const FLOAT_FORMAT = 1234567.0;

function findVersion(view: DataView): PgVersion {
  const [control, catalog] = [view.getUint32(8, true), view.getUint32(12, true)];
  const version = PG_VERSIONS.find((v) =>
    v.controlVersion === control && v.catalogVersion === catalog
  );
  if (version !== undefined) return version;
  throw new BadRequest(
    `Cannot read pg_control: version ${control} with catalog version ${catalog} belongs to no ` +
      `supported PostgreSQL`,
  );
}

/**
 * Decodes pg_control. Throws Corrupt for a short file or a wrong CRC, BadRequest for a version or a
 * build (block sizes and the like) that is not supported.
 */
export function decodeControlFile(bytes: Uint8Array): ControlFile {
  if (bytes.length < 512) {
    throw new Corrupt(`Cannot read pg_control: ${bytes.length} bytes is too short`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = findVersion(view);
  const crc = crc32c(bytes.subarray(0, version.controlCrcOffset));
  if (crc !== view.getUint32(version.controlCrcOffset, true)) {
    throw new Corrupt("Cannot read pg_control: checksum mismatch");
  }
  for (const [at, value, what] of BUILD_FIELDS) {
    const found = view.getUint32(at, true);
    if (found !== value) {
      throw new BadRequest(`Cannot use this cluster: its ${what} is ${found}, not ${value}`);
    }
  }
  if (view.getFloat64(208, true) !== FLOAT_FORMAT || bytes[248] !== 1) {
    throw new BadRequest("Cannot use this cluster: its floating point format is another");
  }
  const u32 = (at: number) => view.getUint32(at, true);
  const lsn = (at: number) => lsnFromHalves(u32(at + 4), u32(at));
  const flag = (at: number) => view.getUint8(at) !== 0;
  return {
    version,
    systemId: view.getBigUint64(0, true),
    state: u32(16),
    time: Number(view.getBigInt64(24, true)),
    checkPointLsn: lsn(32),
    checkPoint: decodeCheckPoint(bytes, 40, version),
    unloggedLsn: lsn(128),
    minRecoveryPoint: lsn(136),
    minRecoveryPointTimelineId: u32(144),
    backupStartPoint: lsn(152),
    backupEndPoint: lsn(160),
    backupEndRequired: flag(168),
    parameters: decodeParameters(view),
    walSegmentSize: u32(228),
    dataChecksumVersion: u32(252),
    defaultCharSigned: version.controlHasCharSignedness ? flag(256) : true,
    nonce: bytes.slice(version.controlNonceOffset, version.controlNonceOffset + NONCE_SIZE),
  };
}

function decodeParameters(view: DataView): WalParameters {
  return {
    walLevel: view.getUint32(172, true),
    walLogHints: view.getUint8(176) !== 0,
    maxConnections: view.getUint32(180, true),
    maxWorkerProcesses: view.getUint32(184, true),
    maxWalSenders: view.getUint32(188, true),
    maxPreparedTransactions: view.getUint32(192, true),
    maxLocksPerTransaction: view.getUint32(196, true),
    trackCommitTimestamp: view.getUint8(200) !== 0,
  };
}

function encodeParameters(view: DataView, parameters: WalParameters): void {
  view.setUint32(172, parameters.walLevel, true);
  view.setUint8(176, parameters.walLogHints ? 1 : 0);
  view.setUint32(180, parameters.maxConnections, true);
  view.setUint32(184, parameters.maxWorkerProcesses, true);
  view.setUint32(188, parameters.maxWalSenders, true);
  view.setUint32(192, parameters.maxPreparedTransactions, true);
  view.setUint32(196, parameters.maxLocksPerTransaction, true);
  view.setUint8(200, parameters.trackCommitTimestamp ? 1 : 0);
}

/** Encodes all 8192 bytes, CRC included. */
export function encodeControlFile(control: ControlFile): Uint8Array<ArrayBuffer> {
  const { version } = control;
  const bytes = new Uint8Array(CONTROL_FILE_SIZE);
  const view = new DataView(bytes.buffer);
  const u32 = (at: number, value: number) => view.setUint32(at, value, true);
  const lsn = (at: number, value: Lsn) => {
    u32(at, lsnLow(value));
    u32(at + 4, lsnHigh(value));
  };
  view.setBigUint64(0, control.systemId, true);
  u32(8, version.controlVersion);
  u32(12, version.catalogVersion);
  u32(16, control.state);
  view.setBigInt64(24, BigInt(control.time), true);
  lsn(32, control.checkPointLsn);
  bytes.set(encodeCheckPoint(control.checkPoint, version), 40);
  lsn(40 + CHECKPOINT_SIZE, control.unloggedLsn);
  lsn(136, control.minRecoveryPoint);
  u32(144, control.minRecoveryPointTimelineId);
  lsn(152, control.backupStartPoint);
  lsn(160, control.backupEndPoint);
  view.setUint8(168, control.backupEndRequired ? 1 : 0);
  encodeParameters(view, control.parameters);
  for (const [at, value] of BUILD_FIELDS) u32(at, value);
  view.setFloat64(208, FLOAT_FORMAT, true);
  u32(228, control.walSegmentSize);
  view.setUint8(248, 1);
  u32(252, control.dataChecksumVersion);
  if (version.controlHasCharSignedness) view.setUint8(256, control.defaultCharSigned ? 1 : 0);
  bytes.set(control.nonce.subarray(0, NONCE_SIZE), version.controlNonceOffset);
  u32(version.controlCrcOffset, crc32c(bytes.subarray(0, version.controlCrcOffset)));
  return bytes;
}

/** What a synthesized clean shutdown says; see wal/start_checkpoint.ts. */
interface ShutdownArgs {
  version: PgVersion;
  systemId: bigint;
  /** START(X), where the shutdown checkpoint's record begins. */
  start: Lsn;
  /** Redo, timeline and oldestActiveXid are overwritten as a shutdown checkpoint has them. */
  checkPoint: CheckPoint;
  parameters: WalParameters;
  walSegmentSize: number;
  /** Whether pages carry checksums: 0 or DATA_CHECKSUM_VERSION. */
  dataChecksumVersion: number;
  /** 32 random bytes (any; kept by the cluster for authentication of unknown users). */
  nonce: Uint8Array;
  /** False on arm64 clusters of 18 and later. */
  defaultCharSigned?: boolean;
}

/** FirstNormalUnloggedLSN (xlogdefs.h). */
const FIRST_UNLOGGED_LSN = 1000 as Lsn;

/** The control file of a cluster shut down cleanly at `start`. */
export function shutdownControlFile(args: ShutdownArgs): ControlFile {
  return {
    version: args.version,
    systemId: args.systemId,
    state: DbState.SHUT_DOWN,
    time: args.checkPoint.time,
    checkPointLsn: args.start,
    checkPoint: { ...args.checkPoint, redo: args.start, oldestActiveXid: 0 },
    unloggedLsn: FIRST_UNLOGGED_LSN,
    minRecoveryPoint: INVALID_LSN,
    minRecoveryPointTimelineId: 0,
    backupStartPoint: INVALID_LSN,
    backupEndPoint: INVALID_LSN,
    backupEndRequired: false,
    parameters: args.parameters,
    walSegmentSize: args.walSegmentSize,
    dataChecksumVersion: args.dataChecksumVersion,
    defaultCharSigned: args.defaultCharSigned ?? true,
    nonce: args.nonce,
  };
}

/** What a synthesized standby says; see wal/standby_start.ts. */
interface StandbyArgs extends Omit<ShutdownArgs, "start"> {
  /** The checkpoint record that replay begins with; `checkPoint` is what it holds. */
  checkPointLsn: Lsn;
  /** Where queries may begin. */
  consistentLsn: Lsn;
}

/** The control file of a standby that replays from a checkpoint and serves from `consistentLsn`. */
export function standbyControlFile(args: StandbyArgs): ControlFile {
  return {
    ...shutdownControlFile({ ...args, start: args.checkPointLsn }),
    state: DbState.SHUT_DOWN_IN_RECOVERY,
    checkPoint: args.checkPoint,
    minRecoveryPoint: args.consistentLsn,
    minRecoveryPointTimelineId: WAL_TIMELINE_ID,
  };
}
