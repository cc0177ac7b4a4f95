/**
 * Checks of a judged run that all redo judge tests share: enough was compared, whole histories give
 * the same page, and the judge sees a wrong byte.
 */
import assert from "node:assert/strict";
import { FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { pageLower, pageUpper } from "../../libs/postgres/page.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { Reconstruction } from "../../pageserver/repository/reconstruction.ts";
import type { ConsistencyChecker } from "../../pageserver/walredo/consistency.ts";
import { reconstructPage } from "../../pageserver/walredo/reconstruct.ts";
import { describeRecord } from "../../pageserver/walredo/record_names.ts";
import { initialises } from "../../pageserver/walredo/redo.ts";
import { describeKey } from "../../pageserver/walredo/redo_error.ts";
import type { PageTarget, RedoKey } from "../../pageserver/walredo/types.ts";
import { judge, type RecordedWal } from "./judge_run.ts";

const VISIBILITY_MAP = "visibility map";

/**
 * No image differed; each resource manager of `imagesMin` had so many images compared, and all
 * `records` were applied.
 */
export function checkImages(
  checker: ConsistencyChecker,
  imagesMin: Record<string, number>,
  records: string[],
): void {
  assert.deepEqual(checker.differences, []);
  assert.equal(checker.differenceCount, 0);
  for (const [rmgr, least] of Object.entries(imagesMin)) {
    let images = 0;
    for (const [name, count] of checker.compared) if (name.startsWith(`${rmgr} `)) images += count;
    assert.ok(images >= least, `only ${images} images of ${rmgr} were compared`);
  }
  const missing = records.filter((name) => !checker.applied.has(name));
  assert.deepEqual(missing, [], "the workload made no such records");
}

/** The records of some pages since they were made from nothing, to rebuild them in one go. */
export class Histories {
  readonly #pages = new Map<string, { key: RedoKey; page: PageTarget; records: Uint8Array[] }>();
  readonly #ends = new Map<string, number[]>();
  readonly #version: PgVersion;

  constructor(version: PgVersion) {
    this.#version = version;
  }

  add(key: RedoKey, page: PageTarget, cursor: RecordCursor): void {
    if (key.kind === "relation" && key.block % 16 !== 3) return;
    const name = describeKey(key);
    if (initialises(cursor, key, this.#version)) {
      this.#pages.set(name, { key, page, records: [] });
      this.#ends.set(name, []);
    }
    const history = this.#pages.get(name);
    if (history === undefined) return;
    history.records.push(cursor.bytes.slice(cursor.start, cursor.start + cursor.length));
    this.#ends.get(name)!.push(cursor.endLsn);
  }

  /** Rebuilds all of them; returns how many. */
  check(): number {
    const found = new Reconstruction();
    const bytes = new Uint8Array(PAGE_SIZE).fill(0x5a);
    const target: PageTarget = { bytes, view: new DataView(bytes.buffer), offset: 0 };
    for (const [name, { key, page, records }] of this.#pages) {
      found.begin();
      records.forEach((record, i) => {
        const at = found.reserve(record.length);
        found.bytes.set(record, at);
        found.addRecord(at, record.length, this.#ends.get(name)![i]! as typeof found.imageLsn);
      });
      reconstructPage(found, key, target, this.#version);
      const expected = page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
      assert.deepEqual(bytes, expected.slice(), name);
    }
    return this.#pages.size;
  }
}

/**
 * Flips one byte after the first suitable record of each resource manager in `names` ("visibility
 * map": of a map page); the judge must point at each.
 */
export function sabotage(wal: RecordedWal, names: string[]): void {
  const wanted = new Set(names);
  const flipped: string[] = [];
  const { checker } = judge(wal, (key, page, cursor) => {
    if (wanted.size === 0 || key.kind !== "relation") return;
    const id = cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
    if (id < 0 || cursor.hasImage[id] === 0 || cursor.applyImage[id] !== 0) return;
    const record = describeRecord(cursor);
    const kind = key.fork === FORK_VM ? VISIBILITY_MAP : record.split(" ")[0]!;
    if (!wanted.has(kind)) return;
    const at = kind === VISIBILITY_MAP ? page.offset + 4000 : byteOfContents(page, cursor.rmid);
    if (at === undefined) return;
    page.bytes[at]! ^= 0x10;
    wanted.delete(kind);
    flipped.push(`${record} at ${formatLsn(cursor.lsn)} on ${describeKey(key)}`);
  }, () => wanted.size === 0);
  assert.equal(flipped.length, names.length, `no page for ${[...wanted]}`);
  const seen = checker.differences.map(({ record, page }) => `${record} on ${page}`);
  for (const name of flipped) assert.ok(seen.includes(name), `not seen: ${name}`);
}

/** Position of the last byte of a tuple, or of any byte where an extension keeps its own. */
function byteOfContents(page: PageTarget, rmid: number): number | undefined {
  const lower = pageLower(page.view, page.offset);
  if (rmid === Rmgr.GENERIC) return lower > 24 ? page.offset + lower - 1 : undefined;
  for (let at = 24; at < lower; at += 4) {
    const pointer = page.view.getUint32(page.offset + at, true);
    const length = pointer >>> 17;
    const end = (pointer & 0x7fff) + length;
    const inside = end - length >= pageUpper(page.view, page.offset) && end <= PAGE_SIZE;
    if (((pointer >>> 15) & 3) === 1 && length >= 16 && inside) return page.offset + end - 1;
  }
  return undefined;
}
