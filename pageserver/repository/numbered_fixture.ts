/**
 * Made-up WAL of which anyone can say what has to be there at any LSN: record n ends at START_LSN +
 * 16 n, changes block n % 13, and rebuilds it every 29th time; every fifth also writes the value of
 * record n. The first one makes the relation of 13 blocks.
 */
import assert from "node:assert/strict";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { joinedText } from "../compaction/image_fixture.ts";
import { type Key, relationSizeKey, twophaseKey } from "./key.ts";
import { Reconstruction } from "./reconstruction.ts";
import { bytesOf, putRecord, START_LSN, textOf } from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

const BLOCKS = 13;

/** The end of record `n`. */
export function lsnOf(n: number): Lsn {
  return addLsn(START_LSN, 16 * n);
}

/** The number of the last record at or below `lsn`. */
export function recordAt(lsn: Lsn): number {
  return Math.floor((lsn - START_LSN) / 16);
}

/** The key whose value every fifth record replaces. */
const VALUE_KEY: Key = twophaseKey(700);

/** The records that make up `block` at record `last`, oldest first. */
function blockAt(block: number, last: number): string[] {
  const records: string[] = [];
  for (let n = last; n > 0; n--) {
    if (n % BLOCKS !== block) continue;
    records.unshift(`r${n}`);
    if (isInit(n)) break;
  }
  return records;
}

function isInit(n: number): boolean {
  return n <= BLOCKS || n % 29 === 0;
}

/** Puts record `n`. */
export function putNumbered(timeline: Timeline, n: number): void {
  const relation = timeline.interner.relation(1663, 5, 77, 0);
  putRecord(timeline, relation, n % BLOCKS, lsnOf(n), `r${n}`, isInit(n));
  if (n === 1) {
    timeline.putValue(relationSizeKey(1663, 5, 77, 0), lsnOf(n), new Uint8Array([BLOCKS, 0, 0, 0]));
  }
  if (n % 5 === 0) timeline.putValue(VALUE_KEY, lsnOf(n), bytesOf(`${n}`));
}

/** Fails unless the timeline has what it must have, at its end and before. */
export function checkContents(timeline: Timeline): void {
  const into = new Reconstruction();
  const last = recordAt(timeline.lastRecordLsn);
  const relation = timeline.interner.relation(1663, 5, 77, 0);
  for (const n of [last, last - 1, last - 40, Math.floor(last / 2)].filter((one) => one > 13)) {
    for (let block = 0; block < BLOCKS; block++) {
      timeline.collect(relation, block, lsnOf(n), into);
      assert.equal(joinedText(into), blockAt(block, n).join(" "));
    }
    assert.equal(textOf(timeline.getValue(VALUE_KEY, lsnOf(n))), `${n - n % 5}`);
  }
}
