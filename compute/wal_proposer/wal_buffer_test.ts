/** The WAL ring against a plain array, with random appends, reads and keep positions. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { WAL_BUFFER_BYTES_MAX, WalBuffer } from "./wal_buffer.ts";

function byteAt(lsn: number): number {
  return (lsn * 31 + (lsn >>> 9)) & 0xff;
}

function walOf(begin: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => byteAt(begin + i));
}

Deno.test("WalBuffer gives back what was appended, from start to end", () => {
  const step = fc.record({ length: fc.integer({ min: 1, max: 131072 }), keep: fc.nat(400_000) });
  fc.assert(
    fc.property(fc.nat(1 << 20), fc.array(step, { maxLength: 40 }), (start, steps) => {
      const buffer = new WalBuffer(start as Lsn);
      for (const { length, keep } of steps) {
        const keepFrom = Math.max(start, buffer.end - keep) as Lsn;
        const held = Math.max(keepFrom, buffer.start);
        buffer.append(walOf(buffer.end, length), keepFrom, start as Lsn);
        assert.ok(buffer.start <= held, "nothing that was to be kept is dropped");
        const out = new Uint8Array(buffer.end - held);
        buffer.copyTo(held as Lsn, buffer.end, out, 0);
        assert.ok(out.every((byte, i) => byte === byteAt(held + i)));
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("fits() is false when uncommitted WAL would have to go", () => {
  const buffer = new WalBuffer(0 as Lsn);
  assert.ok(buffer.fits(WAL_BUFFER_BYTES_MAX, 0 as Lsn));
  buffer.append(new Uint8Array(1000), 0 as Lsn, 0 as Lsn);
  assert.ok(!buffer.fits(WAL_BUFFER_BYTES_MAX, 0 as Lsn));
  assert.ok(buffer.fits(WAL_BUFFER_BYTES_MAX, 1000 as Lsn));
});

Deno.test("WalBuffer grows past its limit for what is not committed, and for nothing else", () => {
  const chunk = WAL_BUFFER_BYTES_MAX / 4;
  const committed = (2 * chunk) as Lsn;
  const buffer = new WalBuffer(0 as Lsn);
  for (let at = 0; at < 5 * chunk; at += chunk) {
    buffer.append(walOf(at, chunk), 0 as Lsn, Math.min(at, committed) as Lsn);
  }
  assert.equal(buffer.capacityBytes, WAL_BUFFER_BYTES_MAX);
  assert.equal(buffer.start, chunk, "what is committed goes, although somebody lags");
  for (let at = 5 * chunk; at < 7 * chunk; at += chunk) {
    buffer.append(walOf(at, chunk), 0 as Lsn, committed);
  }
  assert.equal(buffer.capacityBytes, 2 * WAL_BUFFER_BYTES_MAX);
  assert.ok(buffer.start <= committed);
  const out = new Uint8Array(buffer.end - committed);
  buffer.copyTo(committed, buffer.end, out, 0);
  assert.ok(out.every((byte, i) => byte === byteAt(committed + i)));
});
