/** SLRU layout and circular comparisons. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  memberFlagOffset,
  MEMBERS_PER_PAGE,
  memberXidOffset,
  OFFSETS_PER_PAGE,
  parseSlruSegmentPath,
  SlruKind,
  slruPagePrecedes,
  slruSegmentIsBefore,
  slruSegmentPath,
  XIDS_PER_PAGE,
  XidStatus,
} from "./slru.ts";
import { advancePast, circlePrecedes, fullXidBefore, xidPrecedes } from "./xid.ts";

Deno.test("SLRU pages hold what PostgreSQL's macros say", () => {
  assert.deepEqual([XIDS_PER_PAGE, OFFSETS_PER_PAGE, MEMBERS_PER_PAGE], [32768, 2048, 1636]);
  assert.deepEqual([XidStatus.COMMITTED, XidStatus.ABORTED], [1, 2]);
  // A group: flags of members 0..3, then their xids.
  assert.deepEqual([0, 1, 2, 3, 4].map(memberFlagOffset), [0, 1, 2, 3, 20]);
  assert.deepEqual([0, 1, 2, 3, 4].map(memberXidOffset), [4, 8, 12, 16, 24]);
  assert.equal(memberXidOffset(MEMBERS_PER_PAGE - 1), 8176);
  assert.equal(memberXidOffset(MEMBERS_PER_PAGE), 4);
});

Deno.test("SLRU segment paths parse back", () => {
  for (const kind of Object.values(SlruKind)) {
    for (const segment of [0, 0x1f, 0xffff, 0x14078]) {
      assert.deepEqual(parseSlruSegmentPath(slruSegmentPath(kind, segment)), { kind, segment });
    }
  }
  assert.equal(slruSegmentPath(SlruKind.MEMBERS, 0x14078), "pg_multixact/members/14078");
  assert.equal(parseSlruSegmentPath("pg_xact/000g"), undefined);
});

Deno.test("truncation removes whole segments before the cutoff, over the wraparound too", () => {
  const before = (segment: number, page: number) =>
    slruSegmentIsBefore(SlruKind.CLOG, segment, page);
  assert.deepEqual([before(0, 31), before(0, 32), before(1, 32), before(0, 40)], [
    false,
    true,
    false,
    true,
  ]);
  // 4096 clog segments cover the circle: the last one is older than a cutoff behind the wrap.
  assert.ok(before(4095, 5));
  assert.ok(!slruPagePrecedes(SlruKind.CLOG, 5, 4095 * 32));
  assert.ok(slruPagePrecedes(SlruKind.OFFSETS, 7, 8));
  assert.ok(!slruPagePrecedes(SlruKind.MEMBERS, 8, 8));
});

Deno.test("full xids follow 32-bit xids over epochs", () => {
  const distance = fc.integer({ min: 0, max: 2 ** 31 - 2 });
  const fullXid = fc.integer({ min: 2 ** 32 + 3, max: 2 ** 40 }).filter((x) => x % 2 ** 32 >= 3);
  fc.assert(fc.property(fullXid, distance, (next, step) => {
    const later = next + step;
    if (later % 2 ** 32 < 3 || (later + 1) % 2 ** 32 < 3) return;
    assert.equal(advancePast(next, later % 2 ** 32), later + 1);
    assert.equal(fullXidBefore(later + 1, next % 2 ** 32), next);
    if (step > 0) assert.equal(advancePast(later, next % 2 ** 32), later);
  }));
  assert.equal(advancePast(2 ** 32 - 1, 2 ** 32 - 1), 2 ** 32 + 3, "reserved ids are skipped");
  assert.equal(advancePast(10, 2), 10);
  assert.ok(xidPrecedes(2, 0xfffffff0) && xidPrecedes(0xfffffff0, 3));
  assert.ok(circlePrecedes(0xffffffff, 0) && !circlePrecedes(0, 0xffffffff));
});
