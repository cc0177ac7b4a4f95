/**
 * Any stored thing by its key: a page of a relation or an SLRU rebuilt, a metadata value as stored.
 * For the HTTP API's getpage, which is a tool for looking into a timeline.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { formatRel } from "../../libs/postgres/relation.ts";
import { NotFound } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { describeKey, type Key, KeyClass } from "../repository/key.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { checkBlock, type PageReader } from "./page_reader.ts";

/** The bytes behind `key` at `lsn`, a copy. Throws NotFound, and what reading a page throws. */
export function readKey(
  reader: PageReader,
  served: ServedTimeline,
  key: Key,
  lsn: Lsn,
): Uint8Array<ArrayBuffer> {
  const { relations } = served;
  if (key.f1 === KeyClass.relation && key.f4 !== 0) {
    const tag = { spc: key.f2, db: key.f3, rel: key.f4, fork: key.f5 };
    const object = relations.relationAt(tag, lsn);
    checkBlock(formatRel(tag), relations.blocksAt(object, lsn), key.f6, lsn);
    const page = reader.relationPage(served, tag, object, key.f6, lsn);
    return new Uint8Array(page.bytes.subarray(page.offset, page.offset + PAGE_SIZE));
  }
  if (key.f1 === KeyClass.slru) {
    const object = relations.slruAt(key.f2, key.f4, lsn);
    checkBlock(describeKey(key), relations.blocksAt(object, lsn), key.f6, lsn);
    const page = reader.slruPage(served, key.f2, key.f4, key.f6, lsn);
    return new Uint8Array(page.bytes.subarray(page.offset, page.offset + PAGE_SIZE));
  }
  const value = served.timeline.getValue(key, lsn);
  if (value === undefined) {
    throw new NotFound(`Cannot read ${describeKey(key)} at ${formatLsn(lsn)}: it does not exist`);
  }
  return new Uint8Array(value);
}
