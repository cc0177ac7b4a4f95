/**
 * Redo of hash, BRIN and generic records judged by PostgreSQL, as redo_judge_test.ts does it for
 * heap and btree.
 */
import assert from "node:assert/strict";
import { checkImages, Histories, sabotage } from "./redo_judge/checks.ts";
import { indexWorkload, laterWorkload } from "./redo_judge/hash_workload.ts";
import { compareWithFiles, judge, recordWal } from "./redo_judge/judge_run.ts";
import { findPostgres17 } from "./redo_judge/stock_postgres.ts";

/** Images to be compared at least. */
const IMAGES_MIN = { Hash: 10000, BRIN: 2000, Generic: 2000 };

/** Every record that there is of these resource managers. */
const RECORDS = [
  ..."INIT_META_PAGE INIT_BITMAP_PAGE INSERT ADD_OVFL_PAGE SPLIT_ALLOCATE_PAGE SPLIT_PAGE"
    .split(" ").map((name) => `Hash ${name}`),
  ..."SPLIT_COMPLETE MOVE_PAGE_CONTENTS SQUEEZE_PAGE DELETE SPLIT_CLEANUP UPDATE_META_PAGE"
    .split(" ").map((name) => `Hash ${name}`),
  "Hash VACUUM_ONE_PAGE",
  ..."CREATE_INDEX INSERT INSERT+INIT UPDATE UPDATE+INIT SAMEPAGE_UPDATE REVMAP_EXTEND DESUMMARIZE"
    .split(" ").map((name) => `BRIN ${name}`),
  "Generic Generic",
];

const found = findPostgres17();
const newest = found.at(-1);

for (const { binDir, version } of found) {
  const then = version === newest!.version ? "" : `, then ${newest!.version}`;
  Deno.test(`redo gives the index pages of PostgreSQL ${version}${then}`, async (test) => {
    const wal = await recordWal(binDir, newest!.binDir, indexWorkload, laterWorkload);
    try {
      const histories = new Histories(wal.version);
      const { checker } = judge(wal, (key, page, cursor) => histories.add(key, page, cursor));
      await test.step("no image differs", () => checkImages(checker, IMAGES_MIN, RECORDS));
      await test.step("no page of the stopped server's files differs", () => {
        const { compared, differences } = compareWithFiles(wal, checker);
        assert.deepEqual(differences, []);
        assert.ok(compared.get("relation")! > 1000);
      });
      await test.step("reconstructPage() gives what record after record gave", () => {
        assert.ok(histories.check() > 30, "hardly any page was reconstructed");
      });
      await test.step("one wrong byte is seen, for each resource manager", () =>
        sabotage(wal, Object.keys(IMAGES_MIN)));
    } finally {
      await wal.server.remove();
    }
  });
}

if (newest === undefined) {
  Deno.test.ignore("redo gives the index pages of PostgreSQL 17 (there is none here)", () => {});
}
