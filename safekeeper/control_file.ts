/**
 * The control file of a timeline: `<tenant>/<timeline>/safekeeper.control`, a sealed file (magic
 * "NSKC", version, length, body, CRC-32C) that is replaced atomically. Body, little endian:
 *
 *   tenant cstr | timeline cstr | u32 generation, members, new members (each u32 count, then
 *   u64 id, host cstr, u16 port) | u64 term | u32 count, (u64 term, u64 LSN)* | u32 PG_VERSION_NUM
 * |
 *   u64 system id | u32 segment size | u64 timeline start, local start, commit, peer horizon,
 *   remote consistent LSN
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
import { readSealedFile, type SealedFormat, writeSealedFile } from "../libs/utils/sealed_file.ts";
import type { TimelineState } from "./timeline_state.ts";

/** Name of the control file in a timeline's directory. */
export const CONTROL_FILE_NAME = "safekeeper.control";

const FORMAT: SealedFormat = { magic: "NSKC", version: 1, what: "safekeeper control file" };

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
  return writer.bytes();
}

/** Reads what encodeTimelineState wrote. Throws Corrupt. */
export function decodeTimelineState(body: Uint8Array, what: string): TimelineState {
  const reader = new ByteReader(body, "little", what);
  const state: TimelineState = {
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
  reader.end();
  return state;
}

/** Durably replaces the control file in `directory`. */
export function writeControlFile(directory: string, state: TimelineState): void {
  writeSealedFile(`${directory}/${CONTROL_FILE_NAME}`, FORMAT, encodeTimelineState(state));
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
  const { body } = readSealedFile(path, FORMAT);
  const state = decodeTimelineState(body, `${FORMAT.what} "${path}"`);
  if (state.tenantId !== tenantId || state.timelineId !== timelineId) {
    throw new Corrupt(
      `Cannot use ${FORMAT.what} "${path}": it belongs to ${state.tenantId}/${state.timelineId}`,
    );
  }
  return state;
}
