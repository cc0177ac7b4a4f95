/**
 * Redo of GIN indexes judged by PostgreSQL, as in redo_judge_test.ts: by the images in the records
 * of a workload that reaches every record and every variant of it, and by the server's files.
 */
import assert from "node:assert/strict";
import { PAGE_SIZE, Rmgr } from "../libs/postgres/constants.ts";
import { pageLower } from "../libs/postgres/page.ts";
import type { RecordCursor } from "../libs/postgres/wal/record_cursor.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { describeRecord } from "../pageserver/walredo/record_names.ts";
import { describeKey } from "../pageserver/walredo/redo_error.ts";
import type { PageTarget } from "../pageserver/walredo/types.ts";
import { checkImages, Histories } from "./redo_judge/checks.ts";
import { GIN_VARIANTS, ginVariants } from "./redo_judge/gin_variants.ts";
import { ginLaterWorkload, ginWorkload } from "./redo_judge/gin_workload.ts";
import { compareWithFiles, judge, type RecordedWal, recordWal } from "./redo_judge/judge_run.ts";
import { findPostgres17 } from "./redo_judge/stock_postgres.ts";

const IMAGES_MIN = { Gin: 5000 };
/** Those whose pages redo makes from the record; the rest of a split and vacuum are images. */
const RECORDS =
  "CREATE_PTREE INSERT SPLIT DELETE_PAGE UPDATE_META_PAGE INSERT_LISTPAGE DELETE_LISTPAGE"
    .split(" ").concat("VACUUM_DATA_LEAF_PAGE").map((name) => `Gin ${name}`);
const GIN_DELETED = 4;

const found = findPostgres17();
const newest = found.at(-1);

for (const { binDir, version } of found) {
  const then = version === newest!.version ? "" : `, then ${newest!.version}`;
  Deno.test(`redo gives the GIN pages of PostgreSQL ${version}${then}`, async (test) => {
    const wal = await recordWal(
      binDir,
      newest!.binDir,
      (_server, one) => ginWorkload(one),
      (_server, one) => ginLaterWorkload(one),
    );
    try {
      const histories = new Histories(wal.version);
      const variants = new Map<string, number>();
      const { checker } = judge(wal, (key, page, cursor) => {
        histories.add(key, page, cursor);
        if (cursor.rmid !== Rmgr.GIN) return;
        const id = cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
        for (const name of ginVariants(cursor, id)) {
          variants.set(name, (variants.get(name) ?? 0) + 1);
        }
      });
      if (Deno.env.get("REDO_JUDGE_LOG") === "1") console.log(variants, checker.compared);
      await test.step("no image differs", () => checkImages(checker, IMAGES_MIN, RECORDS));
      await test.step("the workload reached every variant of every record", () => {
        assert.deepEqual([...variants.keys()].sort(), [...GIN_VARIANTS].sort());
      });
      await test.step("no page of the stopped server's files differs", () => {
        const { compared, differences } = compareWithFiles(wal, checker);
        assert.deepEqual(differences, []);
        assert.ok(compared.get("relation")! > 500);
      });
      await test.step("reconstructPage() gives what record after record gave", () => {
        assert.ok(histories.check() > 30, "hardly any page was reconstructed");
      });
      await test.step("one wrong byte is seen, after each kind of record", () => sabotage(wal));
    } finally {
      await wal.server.remove();
    }
  });
}

if (newest === undefined) {
  Deno.test.ignore("redo gives the GIN pages of PostgreSQL 17 (there is none here)", () => {});
}

/** Flips one byte after the first suitable record of each kind; the judge must point at each. */
function sabotage(wal: RecordedWal): void {
  const wanted = new Set(RECORDS);
  const pages = new Set<string>();
  const flipped: string[] = [];
  const { checker } = judge(wal, (key, page, cursor: RecordCursor) => {
    const record = describeRecord(cursor);
    const name = describeKey(key);
    if (!wanted.has(record) || pages.has(name) || isDeleted(page)) return;
    const id = cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
    if (cursor.hasImage[id] === 0 || cursor.applyImage[id] !== 0) return;
    // The right sibling in a split's child, the last byte of pointers or lists in the others.
    const at = record === "Gin SPLIT" ? PAGE_SIZE - 8 : pageLower(page.view, page.offset) - 1;
    page.bytes[page.offset + at]! ^= 0x10;
    wanted.delete(record);
    pages.add(name);
    flipped.push(`${record} at ${formatLsn(cursor.lsn)} on ${name}`);
  }, () => wanted.size === 0);
  assert.deepEqual([...wanted], []);
  const seen = checker.differences.map(({ record, page }) => `${record} on ${page}`);
  for (const name of flipped) assert.ok(seen.includes(name), `not seen: ${name}`);
}

/** Of deleted pages PostgreSQL compares next to nothing. */
function isDeleted(page: PageTarget): boolean {
  return (page.view.getUint16(page.offset + PAGE_SIZE - 2, true) & GIN_DELETED) !== 0;
}
