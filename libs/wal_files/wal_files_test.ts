/**
 * Reading segments, filtering, counting and printing, on WAL that PostgreSQL 17.11 wrote and what
 * its pg_waldump said of it (libs/postgres/testdata).
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { WAL_SEGMENT_SIZE } from "../postgres/constants.ts";
import type { RecordCursor } from "../postgres/wal/record_cursor.ts";
import { matchesFilter, type RecordFilter } from "../postgres/wal/record_filter.ts";
import { recordJson, recordLine } from "../postgres/wal/record_text.ts";
import { WalCounts } from "../postgres/wal/wal_counts.ts";
import { formatLsn, parseLsn } from "../utils/lsn.ts";
import { WalFiles } from "./wal_files.ts";

const TESTDATA = new URL("../postgres/testdata/", import.meta.url);
const NAMES = ["00000001000000000000001A", "00000001000000000000001B"];

/** Golden lines: "rmgr length xid lsn prev | id relation fork block ...". */
const GOLDEN = Deno.readTextFileSync(new URL("pg17_11.txt", TESTDATA)).trim().split("\n");

function withSegments(test: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync({ prefix: "wal-files-" });
  try {
    const wal: Uint8Array = zstdDecompressSync(
      Deno.readFileSync(new URL("pg17_11.wal.zst", TESTDATA)),
    );
    Deno.mkdirSync(join(directory, "pg_wal"));
    NAMES.forEach((name, i) =>
      Deno.writeFileSync(
        join(directory, "pg_wal", name),
        wal.subarray(i * WAL_SEGMENT_SIZE, (i + 1) * WAL_SEGMENT_SIZE),
      )
    );
    Deno.writeTextFileSync(join(directory, "pg_wal", "00000002.history"), "");
    test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function positions(files: WalFiles, range: Parameters<WalFiles["read"]>[0]): string[] {
  const found: string[] = [];
  files.read(range, (cursor) => found.push(formatLsn(cursor.lsn)) > 0);
  return found;
}

const goldenLsn = (line: string) => formatLsn(parseLsn(line.split(" ")[3]!));

Deno.test("a directory's segments are read to the end of the WAL", () =>
  withSegments((directory) => {
    const files = WalFiles.open(directory);
    assert.equal(files.version.major, 17);
    assert.equal(files.segmentSize, WAL_SEGMENT_SIZE);
    assert.equal(formatLsn(files.firstLsn), "0/1A000000");
    const lsns: string[] = [];
    const end = files.read({}, (cursor) => lsns.push(formatLsn(cursor.lsn)) > 0);
    assert.deepEqual(lsns, GOLDEN.map(goldenLsn));
    assert.match(end.reason ?? "", /Cannot read the WAL record|The files end/);
  }));

Deno.test("a range begins at the first record in it and ends before the first beyond", () =>
  withSegments((directory) => {
    const files = WalFiles.open(directory);
    const all = GOLDEN.map(goldenLsn);
    const middle = Math.floor(all.length / 2);
    for (const from of [1, middle, middle + 1]) {
      const start = parseLsn(all[from]!);
      assert.deepEqual(positions(files, { start }), all.slice(from));
      assert.deepEqual(positions(files, { start: start - 1 as typeof start }), all.slice(from));
      assert.deepEqual(positions(files, { end: start }), all.slice(0, from));
    }
    const one = WalFiles.open(join(directory, "pg_wal", NAMES[0]!));
    const inFirst = all.filter((lsn) => lsn < "0/1B000000");
    assert.deepEqual(positions(one, {}).slice(0, inFirst.length - 1), inFirst.slice(0, -1));
  }));

Deno.test("filters choose what pg_waldump's would", () =>
  withSegments((directory) => {
    const files = WalFiles.open(directory);
    const chosen = (filter: RecordFilter) => {
      const lsns: string[] = [];
      files.read({}, (cursor) => {
        if (matchesFilter(cursor, filter)) lsns.push(formatLsn(cursor.lsn));
        return true;
      });
      return lsns;
    };
    const golden = (test: (line: string) => boolean) => GOLDEN.filter(test).map(goldenLsn);
    const relation = { spc: 1663, db: 16688, rel: 16689 };
    assert.deepEqual(
      chosen({ relation, block: 0, fork: 0 }),
      golden((line) => line.includes(" 1663/16688/16689 main 0")),
    );
    assert.deepEqual(chosen({ rmids: new Set([14]) }), golden((line) => line.startsWith("Gist ")));
    assert.deepEqual(chosen({ fork: 2 }), golden((line) => line.includes(" vm ")));
    assert.deepEqual(chosen({ fullPage: true }), golden((line) => line.includes(" image ")));
    assert.deepEqual(chosen({ xid: 12885 }), golden((line) => line.split(" ")[2] === "12885"));
  }));

Deno.test("lines and JSON say the same, and counts add up", () =>
  withSegments((directory) => {
    const files = WalFiles.open(directory);
    const counts = new WalCounts(files.version);
    let bytes = 0;
    let line = "";
    files.read({}, (cursor: RecordCursor) => {
      counts.add(cursor);
      bytes += cursor.length;
      const text = recordLine(cursor, files.version);
      const json = recordJson(cursor, files.version) as { lsn: string; opcode: string };
      assert.ok(text.includes(`lsn: ${json.lsn}, `) && text.includes(`desc: ${json.opcode}`));
      assert.ok(!text.includes("error:"), text);
      if (json.opcode === "COMMIT_PREPARED" && line === "") line = text;
      return true;
    });
    assert.equal(counts.total.records, GOLDEN.length);
    assert.equal(counts.total.recordBytes + counts.total.imageBytes, bytes);
    const names = [...counts.byName()];
    assert.equal(names.reduce((sum, [, count]) => sum + count.records, 0), GOLDEN.length);
    assert.match(line, /^rmgr: Transaction len \(rec\/tot\): +\d+\/ +\d+, tx: +\d+, lsn: 0\/1A/);
    assert.match(line, /desc: COMMIT_PREPARED xid: \d+, gid: golden one, time: 20\d\d-\d\d-\d\dT/);
  }));
