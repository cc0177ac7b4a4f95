/** The table of versions, and names that depend on it. */
import assert from "node:assert/strict";
import { BadRequest, Corrupt } from "../utils/errors.ts";
import { DEFAULT_TABLESPACE, GLOBAL_TABLESPACE } from "./constants.ts";
import { formatRel, parseRelationPath, relationPath, relationSegmentPath } from "./relation.ts";
import { readRelMap } from "./relmap.ts";
import {
  parseTwoPhaseFileName,
  twoPhaseFile,
  twoPhaseFileName,
  twoPhaseMainData,
} from "./two_phase.ts";
import { PG_VERSIONS, pgVersion } from "./versions.ts";

Deno.test("pgVersion() knows 14 to 18 and no others", () => {
  assert.deepEqual(PG_VERSIONS.map((version) => version.major), [14, 15, 16, 17, 18]);
  for (const version of PG_VERSIONS) {
    assert.equal(pgVersion(version.major), version);
    assert.equal(version.catalogDirectory, `PG_${version.major}_${version.catalogVersion}`);
    const { imagePglz, imageLz4, imageZstd, imageHasHole, imageApply } = version;
    assert.equal(version.imageCompressed, imagePglz | imageLz4 | imageZstd);
    assert.equal(version.imageCompressed & (imageHasHole | imageApply), 0);
  }
  assert.throws(() => pgVersion(13), BadRequest);
  assert.throws(() => pgVersion(17.5), BadRequest);
});

Deno.test("relation paths name every fork, segment and tablespace, and parse back", () => {
  const version = pgVersion(17);
  const cases: [string, number, number, number, number, number][] = [
    ["base/5/1259", DEFAULT_TABLESPACE, 5, 1259, 0, 0],
    ["base/5/1259_fsm.2", DEFAULT_TABLESPACE, 5, 1259, 1, 2],
    ["base/16384/16390_init", DEFAULT_TABLESPACE, 16384, 16390, 3, 0],
    ["global/1262_vm", GLOBAL_TABLESPACE, 0, 1262, 2, 0],
    ["pg_tblspc/16400/PG_17_202406281/5/16401.1", 16400, 5, 16401, 0, 1],
  ];
  for (const [path, spc, db, rel, fork, segment] of cases) {
    const tag = { spc, db, rel, fork };
    assert.equal(relationSegmentPath(tag, segment, version), path);
    assert.deepEqual(parseRelationPath(path), { tag, segment });
  }
  for (
    const path of ["base/5/t3_16390", "base/5/PG_VERSION", "base/5/1259_x", "global/pg_control"]
  ) {
    assert.equal(parseRelationPath(path), undefined, path);
  }
  assert.equal(formatRel({ spc: 1663, db: 5, rel: 1259, fork: 2 }), "1663/5/1259_vm");
  assert.throws(() => relationPath({ spc: 16400, db: 5, rel: 1, fork: 0 }), BadRequest);
  assert.throws(() => relationPath({ spc: 1663, db: 5, rel: 1, fork: 4 }), BadRequest);
});

const testdata = (name: string) => Deno.readFileSync(new URL(`testdata/${name}`, import.meta.url));

Deno.test("readRelMap() reads the maps that PostgreSQL 14 and 17 wrote, and no damaged one", () => {
  const PG_DATABASE = 1262;
  for (const [name, major] of [["pg17_11", 17], ["pg14_23", 14]] as const) {
    const bytes = testdata(`${name}.filenode.map`);
    const map = readRelMap(bytes, pgVersion(major), name);
    assert.equal(map.get(PG_DATABASE), PG_DATABASE);
    bytes[20]! ^= 1;
    assert.throws(() => readRelMap(bytes, pgVersion(major), name), Corrupt);
    assert.throws(() => readRelMap(bytes.subarray(0, 100), pgVersion(major), name), Corrupt);
  }
});

Deno.test("two-phase files are named by xid or full xid, and end in their CRC", () => {
  const full = 5 * 2 ** 32 + 0x2f1;
  assert.equal(twoPhaseFileName(full, pgVersion(16)), "000002F1");
  assert.equal(twoPhaseFileName(full, pgVersion(17)), "00000005000002F1");
  assert.equal(parseTwoPhaseFileName("000002F1", pgVersion(16), full + 9), full);
  assert.equal(parseTwoPhaseFileName("00000005000002F1", pgVersion(17), full + 9), full);
  assert.equal(parseTwoPhaseFileName("000002F1", pgVersion(17), full + 9), undefined);
  const file = twoPhaseFile(new TextEncoder().encode("123456789"));
  assert.deepEqual([...file.subarray(9)], [0x83, 0x92, 0x06, 0xe3]); // CRC-32C's check value
  assert.deepEqual(twoPhaseMainData(file, "it"), file.subarray(0, 9));
  file[0]! ^= 1;
  assert.throws(() => twoPhaseMainData(file, "it"), Corrupt);
});
