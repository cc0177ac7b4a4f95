/**
 * The control file of a timeline: `<tenant>/<timeline>/safekeeper.control`, a sealed file (magic
 * "NSKC", version, length, body, CRC-32C) that is replaced atomically. Body, little endian:
 *
 *   tenant cstr | timeline cstr | u32 generation, members, new members (each u32 count, then
 *   u64 id, host cstr, u16 port) | u64 term | u32 count, (u64 term, u64 LSN)* | u32 PG_VERSION_NUM
 * |
 *   u64 system id | u32 segment size | u64 timeline start, local start, commit, peer horizon,
 *   remote consistent LSN, and since version 2 backup LSN, offloaded LSN (0: the WAL is on disk) |
 *   u32 count, partial segments (name cstr, u8 status, u64 term, flush and commit LSN, u32 CRC)*
 *
 * Beside it lies `safekeeper.control.reserve`, space for the next one: on a full disk a safekeeper
 * must still be able to vote, and to note what allows it to remove WAL.
 *
 * A file of another tenant or timeline than its directory says, of a newer version, torn or altered
 * is refused with an error that names it: serving it could lose a vote or a commit.
 */
import { readMembership, writeMembership } from "../libs/safekeeper_protocol/membership.ts";
import { readTermHistory, writeTermHistory } from "../libs/safekeeper_protocol/term_history.ts";
import { readSafeU64 } from "../libs/safekeeper_protocol/wire.ts";
import { ByteReader, ByteWriter } from "../libs/utils/bytes.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import { replaceFileFromReserve } from "../libs/utils/durable.ts";
import { INVALID_LSN } from "../libs/utils/lsn.ts";
import { readSealedFile, sealBytes, type SealedFormat } from "../libs/utils/sealed_file.ts";
import type { PartialSegment, TimelineState } from "./timeline_state.ts";

/** Name of the control file in a timeline's directory. */
export const CONTROL_FILE_NAME = "safekeeper.control";

const FORMAT: SealedFormat = { magic: "NSKC", version: 2, what: "safekeeper control file" };

/** In the order of their numbers in the file. */
const STATUSES: readonly PartialSegment["status"][] = ["started", "uploaded", "deleting"];

/** The body of a control file. */
export function encodeTimelineState(state: TimelineState): Uint8Array {
  const writer = new ByteWriter("little");
  writer.cstr(state.tenantId).cstr(state.timelineId);
  writeMembership(writer, state.membership);
  writer.u64(BigInt(state.term));
  writeTermHistory(writer, state.termHistory);
  writer.u32(state.pgVersionNum).u64(state.systemId).u32(state.walSegmentSize);
  writer.lsn(state.timelineStartLsn).lsn(state.localStartLsn).lsn(state.commitLsn);
  writer.lsn(state.peerHorizonLsn).lsn(state.remoteConsistentLsn);
  writer.lsn(state.backupLsn).lsn(state.offloadedLsn ?? INVALID_LSN);
  writer.u32(state.partialBackup.length);
  for (const partial of state.partialBackup) {
    writer.cstr(partial.name).u8(STATUSES.indexOf(partial.status)).u64(BigInt(partial.term));
    writer.lsn(partial.flushLsn).lsn(partial.commitLsn).u32(partial.crc32c);
  }
  return writer.bytes();
}

/** Reads what encodeTimelineState wrote, in this or an earlier version. Throws Corrupt. */
export function decodeTimelineState(
  body: Uint8Array,
  what: string,
  version = FORMAT.version,
): TimelineState {
  const reader = new ByteReader(body, "little", what);
  const before = {
    tenantId: parseTenantId(reader.cstr()),
    timelineId: parseTimelineId(reader.cstr()),
    membership: readMembership(reader),
    term: readSafeU64(reader),
    termHistory: readTermHistory(reader),
    pgVersionNum: reader.u32(),
    systemId: reader.u64(),
    walSegmentSize: reader.u32(),
    timelineStartLsn: reader.lsn(),
    localStartLsn: reader.lsn(),
    commitLsn: reader.lsn(),
    peerHorizonLsn: reader.lsn(),
    remoteConsistentLsn: reader.lsn(),
  };
  const state: TimelineState = version === 1
    ? {
      ...before,
      backupLsn: before.timelineStartLsn,
      partialBackup: [],
      offloadedLsn: undefined,
    }
    : { ...before, ...readBackup(reader, what) };
  reader.end();
  return state;
}

type BackupState = Pick<TimelineState, "backupLsn" | "offloadedLsn" | "partialBackup">;

function readBackup(reader: ByteReader, what: string): BackupState {
  const backupLsn = reader.lsn();
  const offloadedLsn = reader.lsn();
  const partialBackup = Array.from({ length: reader.u32() }, (): PartialSegment => {
    const name = reader.cstr();
    const status = STATUSES[reader.u8()];
    if (status === undefined) throw new Corrupt(`Cannot read ${what}: unknown status of "${name}"`);
    return {
      name,
      status,
      term: readSafeU64(reader),
      flushLsn: reader.lsn(),
      commitLsn: reader.lsn(),
      crc32c: reader.u32(),
    };
  });
  return {
    backupLsn,
    offloadedLsn: offloadedLsn === INVALID_LSN ? undefined : offloadedLsn,
    partialBackup,
  };
}

/** Durably replaces the control file in `directory`, also when the disk is full. */
export function writeControlFile(directory: string, state: TimelineState): void {
  const bytes = sealBytes(FORMAT, encodeTimelineState(state));
  replaceFileFromReserve(`${directory}/${CONTROL_FILE_NAME}`, bytes);
}

/**
 * Reads the control file in `directory`. Throws Corrupt naming the file if it is damaged, newer
 * than this program, or belongs to another timeline; Deno.errors.NotFound if there is none.
 */
export function readControlFile(
  directory: string,
  tenantId: string,
  timelineId: string,
): TimelineState {
  const path = `${directory}/${CONTROL_FILE_NAME}`;
  const { version, body } = readSealedFile(path, FORMAT);
  const state = decodeTimelineState(body, `${FORMAT.what} "${path}"`, version);
  if (state.tenantId !== tenantId || state.timelineId !== timelineId) {
    throw new Corrupt(
      `Cannot use ${FORMAT.what} "${path}": it belongs to ${state.tenantId}/${state.timelineId}`,
    );
  }
  return state;
}
