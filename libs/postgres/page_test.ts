/** Page header accessors. */
import assert from "node:assert/strict";
import { toLsn } from "../utils/lsn.ts";
import {
  isNewPage,
  pageFlags,
  pageLower,
  pageLsn,
  pagePruneXid,
  pageSpecial,
  pageUpper,
  setPageChecksumField,
  setPageFlags,
  setPageLower,
  setPageLsn,
  setPagePruneXid,
  setPageSpecial,
  setPageUpper,
} from "./page.ts";
import { PAGE_SIZE } from "./constants.ts";

Deno.test("page fields are where PostgreSQL has them and do not touch each other", () => {
  const view = new DataView(new ArrayBuffer(2 * PAGE_SIZE));
  assert.ok(isNewPage(view, PAGE_SIZE));
  setPageLsn(view, PAGE_SIZE, 0x12, 0x89abcdef);
  setPageChecksumField(view, PAGE_SIZE, 0xfffe);
  setPageFlags(view, PAGE_SIZE, 4);
  setPageLower(view, PAGE_SIZE, 28);
  setPageUpper(view, PAGE_SIZE, 8000);
  setPageSpecial(view, PAGE_SIZE, 8176);
  setPagePruneXid(view, PAGE_SIZE, 0x80000001);
  assert.equal(pageLsn(view, PAGE_SIZE), toLsn(0x1289abcdef));
  assert.deepEqual(
    [pageFlags, pageLower, pageUpper, pageSpecial, pagePruneXid]
      .map((read) => read(view, PAGE_SIZE)),
    [4, 28, 8000, 8176, 0x80000001],
  );
  assert.equal(view.getUint16(PAGE_SIZE + 8, true), 0xfffe);
  assert.ok(!isNewPage(view, PAGE_SIZE));
  assert.deepEqual([view.getUint32(PAGE_SIZE, true), view.getUint16(PAGE_SIZE + 18, true)], [
    18,
    0,
  ]);
});
