/**
 * Redo judged by PostgreSQL: every page that our redo changes is compared with the image that stock
 * Postgres put into the WAL record (wal_consistency_checking=all), for each PostgreSQL 17 that is
 * found on this machine (redo_judge/stock_postgres.ts; NEON_TEST_PG_BIN names them, with colons).
 * With two minor versions the older one's timeline goes on under the newer one.
 */
import assert from "node:assert/strict";
import { FORK_VM, PAGE_SIZE, Rmgr } from "../libs/postgres/constants.ts";
import type { RecordCursor } from "../libs/postgres/wal/record_cursor.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { Reconstruction } from "../pageserver/repository/reconstruction.ts";
import type { ConsistencyChecker } from "../pageserver/walredo/consistency.ts";
import { reconstructPage } from "../pageserver/walredo/reconstruct.ts";
import { describeRecord } from "../pageserver/walredo/record_names.ts";
import { initialises } from "../pageserver/walredo/redo.ts";
import { describeKey } from "../pageserver/walredo/redo_error.ts";
import type { PageTarget, RedoKey } from "../pageserver/walredo/types.ts";
import {
  compareWithFiles,
  judge,
  type RecordedWal,
  recordWal,
  VERSION,
} from "./redo_judge/judge_run.ts";
import { findPostgres17 } from "./redo_judge/stock_postgres.ts";

/** Images to be compared at least, for each resource manager. */
const IMAGES_MIN = 2000;

/**
 * Every record that the workload must have made redo apply; without their resource manager's rest.
 */
const RECORDS = [
  ..."INSERT INSERT+INIT DELETE UPDATE UPDATE+INIT HOT_UPDATE HEAP_CONFIRM LOCK INPLACE"
    .split(" ").map((name) => `Heap ${name}`),
  ..."PRUNE_ON_ACCESS PRUNE_VACUUM_SCAN PRUNE_VACUUM_CLEANUP VISIBLE MULTI_INSERT LOCK_UPDATED"
    .split(" ").map((name) => `Heap2 ${name}`),
  ..."INSERT_LEAF INSERT_UPPER INSERT_META INSERT_POST SPLIT_L SPLIT_R DEDUP DELETE VACUUM"
    .split(" ").map((name) => `Btree ${name}`),
  ..."MARK_PAGE_HALFDEAD UNLINK_PAGE UNLINK_PAGE_META NEWROOT META_CLEANUP"
    .split(" ").map((name) => `Btree ${name}`),
  "Heap2 MULTI_INSERT+INIT",
  "Sequence LOG",
  "XLOG FPI",
  "Storage TRUNCATE",
  ..."COMMIT ABORT COMMIT_PREPARED ABORT_PREPARED".split(" ").map((name) => `Transaction ${name}`),
  ..."CREATE_ID ZERO_OFF_PAGE ZERO_MEM_PAGE".split(" ").map((name) => `MultiXact ${name}`),
];

const found = findPostgres17();
const newest = found.at(-1);

for (const { binDir, version } of found) {
  const then = version === newest!.version ? "" : `, then ${newest!.version}`;
  Deno.test(`redo gives the pages of PostgreSQL ${version}${then}`, async (test) => {
    const wal = await recordWal(binDir, newest!.binDir);
    try {
      const histories = new Histories();
      const { checker } = judge(wal, (key, page, cursor) => histories.add(key, page, cursor));
      await test.step("no image differs", () => checkImages(checker));
      await test.step("no page of the stopped server's files differs", () => {
        const { compared, differences } = compareWithFiles(wal, checker);
        assert.deepEqual(differences, []);
        for (const kind of ["pg_xact", "pg_multixact/members", "pg_multixact/offsets"]) {
          assert.ok(compared.has(kind), `no page of ${kind} was compared`);
        }
        assert.ok(compared.get("visibility map")! > 5 && compared.get("relation")! > 500);
      });
      await test.step("reconstructPage() gives what record after record gave", () => {
        assert.ok(histories.check() > 30, "hardly any page was reconstructed");
      });
      await test.step("one wrong byte is seen, for each resource manager", () => sabotage(wal));
    } finally {
      await wal.server.remove();
    }
  });
}

if (newest === undefined) {
  Deno.test.ignore("redo gives the pages of PostgreSQL 17 (there is none here)", () => {});
}

function checkImages(checker: ConsistencyChecker): void {
  assert.deepEqual(checker.differences, []);
  assert.equal(checker.differenceCount, 0);
  for (const rmgr of ["Heap", "Heap2", "Btree", "Sequence"]) {
    let images = 0;
    for (const [name, count] of checker.compared) if (name.startsWith(`${rmgr} `)) images += count;
    assert.ok(images >= IMAGES_MIN, `only ${images} images of ${rmgr} were compared`);
  }
  const missing = RECORDS.filter((name) => !checker.applied.has(name));
  assert.deepEqual(missing, [], "the workload made no such records");
}

/** The records of some pages since they were made from nothing, to rebuild them in one go. */
class Histories {
  readonly #pages = new Map<string, { key: RedoKey; page: PageTarget; records: Uint8Array[] }>();
  readonly #ends = new Map<string, number[]>();

  add(key: RedoKey, page: PageTarget, cursor: RecordCursor): void {
    if (key.kind === "relation" && key.block % 16 !== 3) return;
    const name = describeKey(key);
    if (initialises(cursor, key)) {
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
      reconstructPage(found, key, target, VERSION);
      const expected = page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
      assert.deepEqual(bytes, expected.slice(), name);
    }
    return this.#pages.size;
  }
}

/** Flips one byte after the first suitable record of each kind; the judge must point at each. */
function sabotage(wal: RecordedWal): void {
  const wanted = new Set(["Heap", "Heap2", "Btree", "Sequence", "visibility map"]);
  const flipped: string[] = [];
  const { checker } = judge(wal, (key, page, cursor) => {
    if (wanted.size === 0 || key.kind !== "relation") return;
    const id = cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
    if (id < 0 || cursor.hasImage[id] === 0 || cursor.applyImage[id] !== 0) return;
    const names: Record<number, string> = {
      [Rmgr.HEAP]: "Heap",
      [Rmgr.HEAP2]: "Heap2",
      [Rmgr.BTREE]: "Btree",
      [Rmgr.SEQ]: "Sequence",
    };
    const kind = key.fork === FORK_VM ? "visibility map" : names[cursor.rmid];
    if (kind === undefined || !wanted.has(kind)) return;
    const at = kind === "visibility map" ? page.offset + 4000 : lastByteOfATuple(page);
    if (at === undefined) return;
    page.bytes[at]! ^= 0x10;
    wanted.delete(kind);
    flipped.push(`${describeRecord(cursor)} at ${formatLsn(cursor.lsn)} on ${describeKey(key)}`);
  }, () => wanted.size === 0);
  assert.equal(flipped.length, 5);
  const seen = checker.differences.map(({ record, page }) => `${record} on ${page}`);
  for (const name of flipped) assert.ok(seen.includes(name), `not seen: ${name}`);
}

function lastByteOfATuple(page: PageTarget): number | undefined {
  const count = (page.view.getUint16(page.offset + 12, true) - 24) >> 2;
  for (let i = 0; i < count; i++) {
    const pointer = page.view.getUint32(page.offset + 24 + 4 * i, true);
    const length = pointer >>> 17;
    if (((pointer >>> 15) & 3) === 1 && length > 24) {
      return page.offset + (pointer & 0x7fff) + length - 1;
    }
  }
  return undefined;
}
