/**
 * Redo judged by PostgreSQL: every page that our redo changes is compared with the image that stock
 * Postgres put into the WAL record (wal_consistency_checking=all), for each PostgreSQL 17 that is
 * found on this machine (redo_judge/stock_postgres.ts; NEON_TEST_PG_BIN names them, with colons).
 * With two minor versions the older one's timeline goes on under the newer one.
 */
import assert from "node:assert/strict";
import { checkImages, Histories, sabotage } from "./redo_judge/checks.ts";
import { compareWithFiles, judge, recordWal, tableWorkload } from "./redo_judge/judge_run.ts";
import { findPostgres17 } from "./redo_judge/stock_postgres.ts";
import { logicalWorkload } from "./redo_judge/workload.ts";

/** Images to be compared at least, for each resource manager. */
const IMAGES_MIN = { Heap: 2000, Heap2: 2000, Btree: 2000, Sequence: 2000 };

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
    const wal = await recordWal(
      binDir,
      newest!.binDir,
      tableWorkload,
      (_server, one) => logicalWorkload(one),
    );
    try {
      const histories = new Histories(wal.version);
      const { checker } = judge(wal, (key, page, cursor) => histories.add(key, page, cursor));
      await test.step("no image differs", () => checkImages(checker, IMAGES_MIN, RECORDS));
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
      await test.step("one wrong byte is seen, for each resource manager", () =>
        sabotage(wal, [...Object.keys(IMAGES_MIN), "visibility map"]));
    } finally {
      await wal.server.remove();
    }
  });
}

if (newest === undefined) {
  Deno.test.ignore("redo gives the pages of PostgreSQL 17 (there is none here)", () => {});
}
