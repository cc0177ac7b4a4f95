/**
 * Redo of GiST and SP-GiST records judged by PostgreSQL, as redo_judge_test.ts does it for heap and
 * btree. ASSIGN_LSN is not among them: it is written at wal_level minimal only, and has no pages.
 */
import assert from "node:assert/strict";
import { Rmgr } from "../libs/postgres/constants.ts";
import { checkImages, Histories, sabotage } from "./redo_judge/checks.ts";
import { GIST_VARIANTS, gistVariants } from "./redo_judge/gist_variants.ts";
import { laterSearchTreeWorkload, searchTreeWorkload } from "./redo_judge/gist_workload.ts";
import { compareWithFiles, judge, recordWal } from "./redo_judge/judge_run.ts";
import { findPostgres17 } from "./redo_judge/stock_postgres.ts";

/** Images to be compared at least. */
const IMAGES_MIN = { Gist: 10000, SPGist: 10000 };

/** Every record of these resource managers that has pages. */
const RECORDS = [
  ..."PAGE_UPDATE DELETE PAGE_SPLIT PAGE_DELETE".split(" ").map((name) => `Gist ${name}`),
  ..."ADD_LEAF MOVE_LEAFS ADD_NODE SPLIT_TUPLE PICKSPLIT VACUUM_LEAF VACUUM_ROOT VACUUM_REDIRECT"
    .split(" ").map((name) => `SPGist ${name}`),
];

const found = findPostgres17();
const newest = found.at(-1);

for (const { binDir, version } of found) {
  const then = version === newest!.version ? "" : `, then ${newest!.version}`;
  Deno.test(`redo gives the search tree pages of PostgreSQL ${version}${then}`, async (test) => {
    const wal = await recordWal(
      binDir,
      newest!.binDir,
      searchTreeWorkload,
      laterSearchTreeWorkload,
    );
    try {
      const histories = new Histories(wal.version);
      const variants = new Map<string, number>();
      const { checker } = judge(wal, (key, page, cursor) => {
        histories.add(key, page, cursor);
      }, (cursor) => {
        if (cursor.rmid !== Rmgr.GIST && cursor.rmid !== Rmgr.SPGIST) return false;
        for (let id = -1; id <= cursor.maxBlockId; id++) {
          if (id >= 0 && cursor.blockPresent[id] === 0) continue;
          for (const name of gistVariants(cursor, id)) {
            variants.set(name, (variants.get(name) ?? 0) + 1);
          }
        }
        return false;
      });
      if (Deno.env.get("REDO_JUDGE_LOG") === "1") console.log(variants, checker.compared);
      await test.step("no image differs", () => checkImages(checker, IMAGES_MIN, RECORDS));
      await test.step("the workload reached every variant of every record", () => {
        assert.deepEqual([...variants.keys()].sort(), [...GIST_VARIANTS].sort());
      });
      await test.step("no page of the stopped server's files differs", () => {
        const { compared, differences } = compareWithFiles(wal, checker);
        assert.deepEqual(differences, []);
        assert.ok(compared.get("relation")! > 500);
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
  Deno.test.ignore("redo gives the search tree pages of PostgreSQL 17 (none is here)", () => {});
}
