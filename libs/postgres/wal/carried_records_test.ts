/** Logical messages, rewrite records and pglz: what is written is what is read. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { toLsn } from "../../utils/lsn.ts";
import { Rmgr } from "../constants.ts";
import { PG_VERSIONS, pgVersion } from "../versions.ts";
import { pglzDecompress } from "./decompress.ts";
import { encodeLogicalMessage, readLogicalMessage } from "./logical_message.ts";
import { HEAP2_REWRITE, readLogicalRewrite } from "./logical_rewrite.ts";
import { pglzCompress } from "./pglz_compress.ts";
import { buildRecord, type RecordParts, WalWriter } from "./record_builder.ts";
import { RecordCursor } from "./record_cursor.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";

const START = toLsn(0x2000028);
const SEGMENT = 16 * 1024 * 1024;

/** The cursor on a record that went through WAL. */
function throughWal(parts: Omit<RecordParts, "previous">, version = pgVersion(17)): RecordCursor {
  const writer = new WalWriter(START, { version, segmentSize: SEGMENT, systemId: 1n });
  writer.append(buildRecord({ ...parts, previous: toLsn(8) }));
  const decoder = new WalStreamDecoder(START, SEGMENT, version);
  decoder.feed(writer.bytes());
  const cursor = new RecordCursor();
  assert.ok(decoder.next(cursor));
  return cursor;
}

Deno.test("readLogicalMessage() reads what encodeLogicalMessage() wrote, in every version", () => {
  for (const version of PG_VERSIONS) {
    const content = new Uint8Array(20_000).map((_, i) => i);
    const main = encodeLogicalMessage("neon-file:pg_stat/pgstat.stat", content);
    const cursor = throughWal({ rmid: Rmgr.LOGICALMSG, info: 0, main }, version);
    const message = readLogicalMessage(cursor);
    assert.deepEqual(message && { ...message, content: new Uint8Array(message.content) }, {
      database: 0,
      transactional: false,
      prefix: "neon-file:pg_stat/pgstat.stat",
      content,
    });
  }
});

Deno.test("readLogicalMessage() reads nothing if the lengths are not the record's", () => {
  const main = encodeLogicalMessage("x", new Uint8Array(10));
  main[16]!++;
  const cursor = throughWal({ rmid: Rmgr.LOGICALMSG, info: 0, main });
  assert.equal(readLogicalMessage(cursor), undefined);
});

Deno.test("readLogicalRewrite() names the file as PostgreSQL does", () => {
  const main = new Uint8Array(40 + 36);
  const view = new DataView(main.buffer);
  [[0, 731], [4, 5], [8, 1259], [16, 72], [24, 1], [32, 0x1A2B3C0], [36, 2]].forEach(
    ([at, value]) => view.setUint32(at!, value!, true),
  );
  const parts = { rmid: Rmgr.HEAP2, info: HEAP2_REWRITE, xid: 740, main };
  const { path, offset, mappings } = readLogicalRewrite(throughWal(parts));
  assert.equal(path, "pg_logical/mappings/map-5-4eb-2_1A2B3C0-2db-2e4");
  assert.deepEqual([offset, mappings.length], [72, 36]);
});

Deno.test("pglzCompress() is undone by pglzDecompress(), for whatever bytes", () => {
  const runs = fc.array(fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 600 })), { maxLength: 40 });
  fc.assert(fc.property(runs, (parts) => {
    const bytes = new Uint8Array(parts.flatMap(([value, count]) => Array(count).fill(value)));
    const compressed = pglzCompress(bytes);
    if (compressed === undefined) return;
    assert.ok(compressed.length < bytes.length);
    const target = new Uint8Array(bytes.length);
    const isWhole = pglzDecompress(compressed, 0, compressed.length, target, 0, target.length);
    assert.ok(isWhole);
    assert.deepEqual(target, bytes);
  }));
  assert.equal(pglzCompress(new Uint8Array(8192).fill(7))!.length < 150, true);
  assert.equal(pglzCompress(crypto.getRandomValues(new Uint8Array(8192))), undefined);
});
