/** Names of records against what pg_waldump of each version prints. */
import assert from "node:assert/strict";
import { Rmgr } from "./constants.ts";
import { allRecordNames, opcodeName, parseRmgrName, rmgrName } from "./rmgr_names.ts";
import { pgVersion } from "./versions.ts";

Deno.test("opcodes have the names of their version", () => {
  const name = (major: number, rmid: number, info: number) =>
    opcodeName(pgVersion(major), rmid, info);
  assert.equal(name(17, Rmgr.HEAP2, 0x10), "PRUNE_ON_ACCESS");
  assert.equal(name(16, Rmgr.HEAP2, 0x10), "PRUNE");
  assert.equal(name(14, Rmgr.DBASE, 0x10), "DROP");
  assert.equal(name(15, Rmgr.DBASE, 0x10), "CREATE_WAL_LOG");
  assert.equal(name(18, Rmgr.XLOG, 0xe0), "CHECKPOINT_REDO");
  assert.equal(name(16, Rmgr.XLOG, 0xe0), "UNKNOWN (e0)");
  assert.equal(name(17, Rmgr.XACT, 0x80), "COMMIT");
  assert.equal(name(17, Rmgr.HEAP, 0x80), "INSERT+INIT");
  assert.equal(name(17, Rmgr.HEAP, 0x90), "UNKNOWN (90)"); // there is no DELETE+INIT
  assert.equal(name(17, Rmgr.BTREE, 0xe0), "META_CLEANUP");
  assert.equal(name(17, Rmgr.GIN, 0x80), "DELETE_LISTPAGE");
  assert.equal(name(17, Rmgr.GIN, 0x00), "UNKNOWN (0)");
  assert.equal(name(17, 140, 0x30), "UNKNOWN (30)");
});

Deno.test("resource managers by name", () => {
  assert.equal(rmgrName(11), "Btree");
  assert.equal(rmgrName(133), "custom133");
  assert.equal(parseRmgrName("btree"), 11);
  assert.equal(parseRmgrName("custom133"), 133);
  assert.equal(parseRmgrName("custom001"), undefined);
  assert.equal(parseRmgrName("tree"), undefined);
});

Deno.test("all record names of a version are different", () => {
  for (const major of [14, 15, 16, 17, 18]) {
    const names = allRecordNames(pgVersion(major));
    assert.equal(new Set(names).size, names.length);
    assert.ok(names.length > 110, `${names.length} of ${major}`);
  }
});
