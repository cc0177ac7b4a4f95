/** What is carried of a data directory: which files, which pages, in which records. */
import assert from "node:assert/strict";
import { snapshotLsn, snapshotPath } from "../../libs/basebackup/carried_files.ts";
import { FORK_FSM, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { crc32c } from "../../libs/utils/crc32c.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { parseLsn, toLsn } from "../../libs/utils/lsn.ts";
import { encodeArena } from "../lazy_files/arena.ts";
import { changedFiles, type KnownFiles, noteCarried, presentFiles } from "./files.ts";
import { freeSpaceRecords } from "./free_space.ts";
import { readSlotNames, writeSlotNames } from "./slot_names.ts";

async function withDirectory(body: (path: string) => Promise<void> | void): Promise<void> {
  const path = Deno.makeTempDirSync({ prefix: "carried_test_" });
  try {
    await body(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function put(path: string, bytes: Uint8Array | string): void {
  Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  if (typeof bytes === "string") Deno.writeTextFileSync(path, bytes);
  else Deno.writeFileSync(path, bytes);
}

interface Slot {
  name: string;
  database?: number;
  persistency?: number;
  restart: string;
}

/** A state file as PostgreSQL 17 writes it. */
function slotState({ name, database = 5, persistency = 0, restart }: Slot): Uint8Array {
  const bytes = new Uint8Array(200);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x1051ca1, true);
  view.setUint32(8, 5, true);
  view.setUint32(12, bytes.length - 16, true);
  new TextEncoder().encodeInto(name, bytes.subarray(16, 80));
  view.setUint32(80, database, true);
  view.setUint32(84, persistency, true);
  view.setBigUint64(96, BigInt(parseLsn(restart)), true);
  view.setUint32(4, crc32c(bytes.subarray(8)), true);
  return bytes;
}

Deno.test("presentFiles() has logical slots that stay, each behind its snapshot", async () => {
  await withDirectory((root) => {
    put(`${root}/pg_replslot/a/state`, slotState({ name: "a", restart: "1/2A0" }));
    put(`${root}/pg_replslot/b/state`, slotState({ name: "b", persistency: 2, restart: "0/8" }));
    put(`${root}/pg_replslot/c/state`, slotState({ name: "c", database: 0, restart: "0/8" }));
    put(`${root}/pg_replslot/d.tmp/state`, slotState({ name: "d", restart: "0/8" }));
    put(`${root}/pg_logical/snapshots/1-2A0.snap`, "needed");
    put(`${root}/pg_logical/snapshots/1-100.snap`, "not needed");
    put(`${root}/pg_stat/pgstat.stat`, "statistics");
    const running = presentFiles(root, false).map(({ path }) => path);
    assert.deepEqual(running, ["pg_logical/snapshots/1-2A0.snap", "pg_replslot/a/state"]);
    const ended = presentFiles(root, true).map(({ path }) => path);
    assert.deepEqual(ended, ["pg_stat/pgstat.stat", ...running]);
  });
});

Deno.test("changedFiles() names what is new, what changed and what is gone, once", async () => {
  await withDirectory((root) => {
    const known: KnownFiles = new Map([["pg_stat/pgstat.stat", 1], ["pg_replslot/old/state", 2]]);
    put(`${root}/pg_replslot/a/state`, slotState({ name: "a", restart: "1/2A0" }));
    put(`${root}/pg_logical/snapshots/1-2A0.snap`, "needed");
    const changed = changedFiles(known, presentFiles(root, false), false);
    assert.deepEqual(changed.map(({ path, content }) => [path, content.length]), [
      ["pg_logical/snapshots/1-2A0.snap", 6],
      ["pg_replslot/a/state", 200],
      ["pg_replslot/old/state", 0],
    ]);
    noteCarried(known, changed);
    assert.deepEqual(changedFiles(known, presentFiles(root, false), false), []);
    const ended = changedFiles(known, presentFiles(root, true), true);
    assert.deepEqual(ended.map(({ path }) => path), ["pg_stat/pgstat.stat"]);
  });
});

Deno.test("changedFiles() keeps a slot whose file cannot be read, and one that stays", async () => {
  await withDirectory((root) => {
    const known: KnownFiles = new Map([["pg_replslot/a/state", 1], ["pg_replslot/b/state", 2]]);
    put(`${root}/pg_replslot/a/state`, "damaged");
    put(`${root}/pg_replslot/b/state`, slotState({ name: "b", restart: "0/100" }));
    const present = presentFiles(root, false, (slot) => slot);
    assert.deepEqual(changedFiles(known, present, false), []);
  });
});

Deno.test("snapshotLsn() is the inverse of snapshotPath()", () => {
  for (const lsn of ["0/8", "A/FFFFFFF8", "1F/0"].map(parseLsn)) {
    assert.equal(snapshotLsn(snapshotPath(lsn)), lsn);
  }
});

Deno.test("writeSlotNames() and readSlotNames() agree; no file is no slots", async () => {
  await withDirectory((root) => {
    assert.deepEqual(readSlotNames(`${root}/slots`), []);
    writeSlotNames(`${root}/slots`, ["b", "a"]);
    assert.deepEqual(readSlotNames(`${root}/slots`), ["a", "b"]);
  });
});

/** A map of pages that are filled with one byte each; 0 is a page that was never used. */
function pagesOf(...fill: number[]): Uint8Array {
  const bytes = new Uint8Array(fill.length * PAGE_SIZE);
  fill.forEach((value, page) => bytes.fill(value, page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
  return bytes;
}

Deno.test("freeSpaceRecords() has the pages that changed, of permanent relations", async () => {
  await withDirectory(async (root) => {
    const file = { spc: 1663, db: 5, fork: FORK_FSM, sourceFork: FORK_FSM, segment: 0, pages: 3 };
    const { written, totalBytes } = encodeArena({
      bootId: "00000000-0000-0000-0000-000000000000",
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      settings: {
        pageserver: { host: "127.0.0.1", port: 1 },
        requestLsn: toLsn(8),
        notModifiedSince: toLsn(8),
        retrySeconds: 1,
        readAheadPages: 1,
      },
      files: [{ ...file, rel: 100 }, { ...file, rel: 200 }],
    });
    const arena = new Uint8Array(totalBytes);
    arena.set(written);
    const view = new DataView(arena.buffer);
    const words = Number(view.getBigUint64(32, true));
    view.setUint32(words, 1, true); // fetched
    view.setUint32(words + 4, 2, true); // written
    put(`${root}/arena`, arena);
    put(`${root}/base/5/100_fsm`, pagesOf(1, 2, 0, 4, 0)); // two pages longer than it was
    put(`${root}/base/5/200_fsm`, pagesOf(0, 0, 0)); // nothing is fetched
    put(`${root}/base/5/300_fsm`, pagesOf(7)); // of this run
    put(`${root}/base/5/400_fsm`, pagesOf(8)); // unlogged
    put(`${root}/base/5/400_init`, "");
    put(`${root}/base/5/t3_500_fsm`, pagesOf(9)); // temporary
    const records = [];
    for await (const record of freeSpaceRecords(root, `${root}/arena`, pgVersion(17))) {
      records.push(record);
    }
    const blocks = records.flatMap((record) => record.blocks ?? []);
    assert.deepEqual(blocks.map(({ tag, block }) => [tag.rel, tag.fork, block]), [
      [300, FORK_FSM, 0],
      [100, FORK_FSM, 1],
      [100, FORK_FSM, 3],
    ]);
    assert.ok(blocks.every(({ image }) => image!.bytes.length < 200), "images are compressed");
  });
});
