/**
 * index_part: what a timeline consists of, the one mutable file of a timeline, replaced atomically.
 *
 * A sealed file (libs/utils/sealed_file.ts, magic "NIDX"), little endian:
 *
 *   u32 PostgreSQL major version
 *   u64 diskConsistentLsn    all changes up to here are in the layers listed
 *   u64 prevRecordLsn        start of the record that ends at diskConsistentLsn; 0 if unknown
 *   u64 initdbLsn
 *   u64 startLsn
 *   u8  has an ancestor | ancestor timeline 16 | u64 ancestorLsn     (zeros for a root)
 *   u32 layers | layer ...
 *   layer: u8 kind (1 delta, 2 image, 3 delta in key order; 3 since version 2) | first key 18 |
 *          last key 18 | u64 LSN start | u64 LSN end | u32 generation | u64 file bytes
 *
 * Order of a flush: layer file synced, its name synced, index_part replaced. At the start files
 * that it does not list are removed.
 */
import { ByteReader, ByteWriter } from "../../libs/utils/bytes.ts";
import { fsyncDirectory, replaceFile } from "../../libs/utils/durable.ts";
import { decodeHex } from "../../libs/utils/hex.ts";
import { type TimelineId, timelineIdFromBytes } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { readSealedFile, sealBytes, type SealedFormat } from "../../libs/utils/sealed_file.ts";
import { replaceFileAsync } from "./durable_async.ts";
import { KEY_BYTES, keyFromBytes, keyToBytes } from "./key.ts";
import { kindNumber, kindOf, type LayerDescription } from "./layer_format.ts";

const FORMAT: SealedFormat = { magic: "NIDX", version: 2, what: "timeline index" };

/** The file's name in the timeline's directory. */
export const INDEX_PART_NAME = "index_part";

/** The durable state of a timeline. */
export interface IndexPart {
  readonly pgVersion: number;
  readonly diskConsistentLsn: Lsn;
  readonly prevRecordLsn: Lsn;
  readonly initdbLsn: Lsn;
  readonly startLsn: Lsn;
  readonly ancestorTimelineId: TimelineId | undefined;
  /** 0 for a root. */
  readonly ancestorLsn: Lsn;
  readonly layers: readonly LayerDescription[];
}

function encode(part: IndexPart): Uint8Array {
  const writer = new ByteWriter("little", 128 + part.layers.length * 72);
  writer.u32(part.pgVersion).lsn(part.diskConsistentLsn).lsn(part.prevRecordLsn);
  writer.lsn(part.initdbLsn).lsn(part.startLsn);
  const ancestor = part.ancestorTimelineId;
  writer.u8(ancestor === undefined ? 0 : 1);
  if (ancestor === undefined) writer.zeros(16);
  else writer.raw(decodeHex(ancestor));
  writer.lsn(part.ancestorLsn).u32(part.layers.length);
  for (const layer of part.layers) {
    writer.u8(kindNumber(layer)).raw(keyToBytes(layer.first));
    writer.raw(keyToBytes(layer.last)).lsn(layer.lsnStart).lsn(layer.lsnEnd);
    writer.u32(layer.generation).u64(BigInt(layer.sizeBytes));
  }
  return sealBytes(FORMAT, writer.bytes());
}

function readLayer(reader: ByteReader, path: string): LayerDescription {
  return {
    ...kindOf(reader.u8(), `timeline index "${path}"`),
    first: keyFromBytes(reader.raw(KEY_BYTES)),
    last: keyFromBytes(reader.raw(KEY_BYTES)),
    lsnStart: reader.lsn(),
    lsnEnd: reader.lsn(),
    generation: reader.u32(),
    sizeBytes: Number(reader.u64()),
  };
}

/** Atomically and durably replaces the file in `directory`. */
export async function writeIndexPart(directory: string, part: IndexPart): Promise<void> {
  await replaceFileAsync(`${directory}/${INDEX_PART_NAME}`, encode(part));
}

/**
 * Writes what was read once more, durably, before anybody is told of it: the life before may have
 * failed to sync the name of what is read now, and a sync of our own would not show it. Where there
 * is no room the file stays as it is.
 */
export function rewriteIndexPart(directory: string, part: IndexPart): void {
  ifThere(() => Deno.removeSync(`${directory}/${INDEX_PART_NAME}.___temp`)); // may be such a file
  try {
    replaceFile(`${directory}/${INDEX_PART_NAME}`, encode(part));
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code !== "ENOSPC") throw thrown;
    fsyncDirectory(directory);
  }
}

/** Reads the file in `directory`. Throws Corrupt, or Deno.errors.NotFound. */
export function readIndexPart(directory: string): IndexPart {
  const path = `${directory}/${INDEX_PART_NAME}`;
  const { body } = readSealedFile(path, FORMAT);
  const reader = new ByteReader(body, "little", `timeline index "${path}"`);
  const pgVersion = reader.u32();
  const diskConsistentLsn = reader.lsn();
  const prevRecordLsn = reader.lsn();
  const initdbLsn = reader.lsn();
  const startLsn = reader.lsn();
  const hasAncestor = reader.u8() === 1;
  const ancestor = reader.raw(16);
  const ancestorTimelineId = hasAncestor ? timelineIdFromBytes(ancestor) : undefined;
  const ancestorLsn = reader.lsn();
  const layers = Array.from({ length: reader.u32() }, () => readLayer(reader, path));
  reader.end();
  return {
    pgVersion,
    diskConsistentLsn,
    prevRecordLsn,
    initdbLsn,
    startLsn,
    ancestorTimelineId,
    ancestorLsn,
    layers,
  };
}
