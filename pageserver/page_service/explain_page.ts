/**
 * How a page at an LSN is put together: which layers have what of it, the image it begins with (or
 * the record that makes it from nothing) and every record applied since. For people (`neon page
 * get --explain`), by way of the HTTP API's getpage.
 */
import { opcodeName, rmgrName } from "../../libs/postgres/rmgr_names.ts";
import { formatRel } from "../../libs/postgres/relation.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import type { PageExplanation } from "../client.ts";
import { describeKey, type Key, KeyClass } from "../repository/key.ts";
import type { ExplainedLayer } from "../repository/read_path.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { checkBlock, type PageReader } from "./page_reader.ts";
import { readKey } from "./read_key.ts";

/** Explains a block of a relation. Throws BadRequest for another key, and what readKey() throws. */
export function explainPage(
  reader: PageReader,
  served: ServedTimeline,
  key: Key,
  lsn: Lsn,
): PageExplanation {
  if (key.f1 !== KeyClass.relation || key.f4 === 0) {
    throw new BadRequest(`Cannot explain ${describeKey(key)}: it is no block of a relation`);
  }
  const { relations, timeline } = served;
  const tag = { spc: key.f2, db: key.f3, rel: key.f4, fork: key.f5 };
  const object = relations.relationAt(tag, lsn);
  const blocks = relations.blocksAt(object, lsn);
  checkBlock(formatRel(tag), blocks, key.f6, lsn);
  const entries = timeline.explain(object, key.f6, lsn);
  const collected = new Reconstruction();
  timeline.collect(object, key.f6, lsn, collected);
  const cursor = new RecordCursor();
  const layers: ExplainedLayer[] = [];
  const steps = entries.map((entry, i) => {
    let layer = layers.indexOf(entry.layer);
    if (layer < 0) layer = layers.push(entry.layer) - 1;
    const step = { lsn: formatLsn(entry.lsn), layer };
    if (entry.kind === "image") return { ...step, kind: entry.kind, bytes: collected.imageLength };
    const record = i - (collected.hasImage ? 1 : 0);
    const { bytes, view, recordOffset, recordLength } = collected;
    const length = recordLength[record]!;
    const at = recordOffset[record]!;
    cursor.decode(served.version, bytes, view, at, length, entry.lsn, entry.lsn);
    return {
      ...step,
      kind: "record" as const,
      bytes: length,
      makes_page: entry.kind === "initRecord",
      rmgr: rmgrName(cursor.rmid),
      opcode: opcodeName(served.version, cursor.rmid, cursor.info),
      xid: cursor.xid,
    };
  });
  return {
    page: readKey(reader, served, key, lsn).toBase64(),
    relation: formatRel(tag),
    block: key.f6,
    relation_blocks: blocks,
    lsn: formatLsn(lsn),
    layers: layers.map((layer) => ({
      timeline_id: layer.timelineId,
      name: layer.name,
      lsn_start: formatLsn(layer.lsnStart),
      lsn_end: formatLsn(layer.lsnEnd),
    })),
    steps,
  };
}
