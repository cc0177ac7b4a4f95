/** pg_control and CheckPoint against one of PostgreSQL 17.11, and against themselves. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { BadRequest, Corrupt } from "../utils/errors.ts";
import { type Lsn, toLsn } from "../utils/lsn.ts";
import { type CheckPoint, decodeCheckPoint, encodeCheckPoint } from "./checkpoint.ts";
import {
  CONTROL_FILE_SIZE,
  DbState,
  decodeControlFile,
  encodeControlFile,
  NONCE_SIZE,
  shutdownControlFile,
} from "./control_file.ts";
import { PG_VERSIONS } from "./versions.ts";
import { defaultWalParameters, emptyCheckPoint } from "./empty_cluster_fixture.ts";

const GOLDEN = Deno.readFileSync(new URL("testdata/pg17_11.control", import.meta.url));

Deno.test("decodeControlFile() reads what pg_controldata 17.11 showed, and encodes it back", () => {
  const control = decodeControlFile(GOLDEN);
  assert.equal(control.version.major, 17);
  assert.equal(control.systemId, 7710535694845074404n);
  assert.equal(control.state, DbState.SHUT_DOWN);
  assert.equal(control.checkPoint.nextXid, 12910);
  assert.equal(control.parameters.walLevel, 2);
  assert.equal(control.parameters.maxPreparedTransactions, 10);
  assert.equal(control.parameters.trackCommitTimestamp, true);
  assert.equal(control.dataChecksumVersion, 1);
  assert.equal(control.walSegmentSize, 16 * 1024 * 1024);
  assert.deepEqual(encodeControlFile(control).subarray(0, 512), GOLDEN);
});

Deno.test("decodeControlFile() refuses damage, other versions and other builds", () => {
  const at = (offset: number, value: number) => {
    const bytes = GOLDEN.slice();
    bytes[offset] = value;
    return bytes;
  };
  assert.throws(() => decodeControlFile(GOLDEN.subarray(0, 100)), Corrupt);
  assert.throws(() => decodeControlFile(at(32, 1)), Corrupt);
  assert.throws(() => decodeControlFile(at(12, 1)), BadRequest);
  const control = encodeControlFile(decodeControlFile(GOLDEN));
  assert.equal(control.length, CONTROL_FILE_SIZE);
});

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const checkPoint: fc.Arbitrary<CheckPoint> = fc.record({
  redo: fc.nat(Number.MAX_SAFE_INTEGER).map((lsn) => lsn as Lsn),
  timelineId: u32,
  previousTimelineId: u32,
  fullPageWrites: fc.boolean(),
  walLevel: fc.constant(1),
  nextXid: fc.nat(Number.MAX_SAFE_INTEGER),
  nextOid: u32,
  nextMulti: u32,
  nextMultiOffset: u32,
  oldestXid: u32,
  oldestXidDb: u32,
  oldestMulti: u32,
  oldestMultiDb: u32,
  time: fc.integer(),
  oldestCommitTsXid: u32,
  newestCommitTsXid: u32,
  oldestActiveXid: u32,
}, { noNullPrototype: true });

Deno.test("a CheckPoint survives encoding in every version", () => {
  fc.assert(fc.property(checkPoint, fc.constantFrom(...PG_VERSIONS), (value, version) => {
    const bytes = encodeCheckPoint(value, version);
    assert.equal(bytes.length, 88);
    assert.deepEqual(decodeCheckPoint(bytes, 0, version), value);
  }));
  assert.throws(() => decodeCheckPoint(new Uint8Array(87), 0, PG_VERSIONS[0]!), Corrupt);
});

Deno.test("shutdownControlFile() is a clean shutdown, in every version", () => {
  for (const version of PG_VERSIONS) {
    const start = toLsn(0x2000018);
    const nonce = new Uint8Array(NONCE_SIZE).fill(9);
    const control = shutdownControlFile({
      version,
      systemId: 5n,
      start,
      checkPoint: { ...emptyCheckPoint(), oldestActiveXid: 700 },
      parameters: { ...defaultWalParameters(), maxPreparedTransactions: 3 },
      walSegmentSize: 1 << 24,
      dataChecksumVersion: 1,
      nonce,
    });
    assert.deepEqual(decodeControlFile(encodeControlFile(control)), control);
    assert.equal(control.state, DbState.SHUT_DOWN);
    assert.deepEqual([control.checkPointLsn, control.checkPoint.redo], [start, start]);
    assert.deepEqual([control.checkPoint.oldestActiveXid, control.dataChecksumVersion], [0, 1]);
  }
});
