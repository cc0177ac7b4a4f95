import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { join } from "node:path";
import { Corrupt } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { toLsn } from "../../libs/utils/lsn.ts";
import { readArenaStatistics, updateArena } from "./arena.ts";
import { clearDataDirectory, layOutFiles, type LayOutOptions, plannedLengths } from "./lay_out.ts";

const SEGMENT_BYTES = 2 ** 30;

function optionsFor(
  directory: string,
  forks: [spc: number, db: number, rel: number, fork: number, blocks: number][],
): LayOutOptions {
  return {
    pgdata: join(directory, "pgdata"),
    arenaPath: join(directory, "arena"),
    map: {
      lsn: toLsn(0x5000028),
      prevLsn: toLsn(0x5000000),
      pgMajor: 17,
      forks: forks.map(([spc, db, rel, fork, blocks]) => ({ spc, db, rel, fork, blocks })),
    },
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pageserver: { host: "127.0.0.1", port: 64000 },
    bootId: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
  };
}

function withDirectory(use: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync({ prefix: "lay-out-" });
  try {
    use(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function sizes(pgdata: string): Record<string, number> {
  const found: Record<string, number> = {};
  const visit = (directory: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(join(pgdata, directory))) {
      const path = join(directory, name);
      if (isDirectory) visit(path);
      else found[path] = Deno.statSync(join(pgdata, path)).size;
    }
  };
  visit("");
  return found;
}

Deno.test("layOutFiles() makes sparse files of the mapped lengths", () =>
  withDirectory((directory) => {
    const options = optionsFor(directory, [
      [1664, 0, 1262, 0, 1],
      [1663, 5, 1259, 0, 14],
      [1663, 5, 1259, 2, 1],
      [1663, 5, 2000, 0, 0],
      [1663, 5, 3000, 0, 131072 + 2],
      [16400, 5, 4000, 0, 3],
    ]);
    const laidOut = layOutFiles(options);
    deepEqual(sizes(options.pgdata), {
      "global/1262": 8192,
      "base/5/1259": 14 * 8192,
      "base/5/1259_vm": 8192,
      "base/5/2000": 0,
      "base/5/3000": SEGMENT_BYTES,
      "base/5/3000.1": 2 * 8192,
    });
    deepEqual(laidOut, { files: 6, pages: 1 + 14 + 1 + 131072 + 2, skippedForks: 1 });
    equal(Deno.statSync(join(options.pgdata, "base/5/3000")).blocks, 0);
    equal(Deno.statSync(join(options.pgdata, "base/5/3000")).mode! & 0o777, 0o600);
  }));

Deno.test("layOutFiles() gives an unlogged relation the length of its init fork", () =>
  withDirectory((directory) => {
    const options = optionsFor(directory, [
      [1663, 5, 100, 0, 77],
      [1663, 5, 100, 1, 3],
      [1663, 5, 100, 3, 1],
      [1663, 5, 101, 3, 0],
    ]);
    layOutFiles(options);
    deepEqual(sizes(options.pgdata), {
      "base/5/100": 8192,
      "base/5/100_init": 8192,
      "base/5/101": 0,
      "base/5/101_init": 0,
    });
  }));

Deno.test("layOutFiles() uses relation files again and removes others", () =>
  withDirectory((directory) => {
    const first = optionsFor(directory, [
      [1663, 5, 100, 0, 7],
      [1663, 5, 200, 0, 7],
      [1663, 6, 100, 0, 7],
      [1664, 0, 300, 0, 7],
    ]);
    layOutFiles(first);
    const at = (path: string) => join(first.pgdata, path);
    Deno.writeFileSync(at("base/5/100"), new Uint8Array(9 * 8192).fill(7));
    for (const path of ["base/5/PG_VERSION", "base/5/t3_100", "global/pg_control"]) {
      Deno.writeTextFileSync(at(path), "old");
    }
    Deno.mkdirSync(at("pg_wal/archive_status"), { recursive: true });
    clearDataDirectory(first.pgdata);
    Deno.writeTextFileSync(at("base/5/PG_VERSION"), "17\n");
    Deno.writeTextFileSync(at("global/pg_control"), "new");
    layOutFiles({ ...first, map: { ...first.map, forks: [first.map.forks[0]!] } });
    deepEqual(sizes(first.pgdata), {
      "base/5/100": 7 * 8192,
      "base/5/PG_VERSION": 3,
      "global/pg_control.lazy": 3,
    });
    ok(Deno.readFileSync(at("base/5/100")).every((byte) => byte === 0));
    deepEqual([...Deno.readDirSync(at("base"))].map(({ name }) => name), ["5"]);
  }));

Deno.test("layOutFiles() corrects only what differs in a directory laid out ahead", () =>
  withDirectory((directory) => {
    const options = optionsFor(directory, [
      [1663, 5, 1259, 0, 14],
      [1663, 5, 2000, 0, 3],
      [1663, 5, 3000, 0, 1],
    ]);
    const empty = plannedLengths(options.map);
    deepEqual([...empty.values()], [14 * 8192, 3 * 8192, 8192]);
    layOutFiles(options);
    const path = (name: string) => join(options.pgdata, "base/5", name);
    const before = Deno.statSync(path("1259")).ctime;
    // Laid out for a shorter file, without one, with a file and a database that are no more
    Deno.removeSync(path("3000"));
    empty.delete("base/5/3000");
    empty.set("base/5/2000", 8192);
    const gone = ["base/5/4000", "base/7/1", "base/7/2"];
    Deno.mkdirSync(join(options.pgdata, "base/7"));
    for (const name of gone) {
      Deno.writeTextFileSync(join(options.pgdata, name), "");
      empty.set(name, 0);
    }
    layOutFiles({ ...options, empty });
    deepEqual(Object.keys(sizes(options.pgdata)).sort(), [
      "base/5/1259",
      "base/5/2000",
      "base/5/3000",
    ]);
    deepEqual([...Deno.readDirSync(join(options.pgdata, "base"))].map(({ name }) => name), ["5"]);
    deepEqual(Deno.statSync(path("1259")).ctime, before);
    equal(Deno.statSync(path("2000")).size, 3 * 8192);
    equal(Deno.statSync(path("3000")).size, 8192);
  }));

Deno.test("updateArena() changes settings, one copy after the other", () =>
  withDirectory((directory) => {
    const options = optionsFor(directory, [[1663, 5, 100, 0, 7]]);
    layOutFiles(options);
    const before = updateArena(options.arenaPath, {});
    deepEqual(before, {
      pageserver: { host: "127.0.0.1", port: 64000 },
      requestLsn: toLsn(0x5000028),
      notModifiedSince: toLsn(0x5000028),
      retrySeconds: 60,
      readAheadPages: 128,
    });
    for (let i = 1; i < 5; i++) {
      const requestLsn = toLsn(0x5000028 + i * 2 ** 33);
      deepEqual(updateArena(options.arenaPath, { requestLsn }), { ...before, requestLsn });
    }
    throws(() => updateArena(options.arenaPath, { requestLsn: toLsn(8) }), /before the start LSN/);
    const named = { pageserver: { host: "localhost", port: 1 } };
    throws(() => updateArena(options.arenaPath, named), /numeric IPv4/);
    deepEqual(Object.values(readArenaStatistics(options.arenaPath)), [0, 0, 0, 0, 0, 0, 0, 0]);
  }));

Deno.test("updateArena() refuses an arena with a changed byte", () =>
  withDirectory((directory) => {
    const options = optionsFor(directory, [[1663, 5, 100, 0, 7]]);
    layOutFiles(options);
    const good = Deno.readFileSync(options.arenaPath);
    for (const at of [0, 5, 50, 100, 150, 188, 256, 280, 287]) {
      const bad = good.slice();
      bad[at]! ^= 1;
      Deno.writeFileSync(options.arenaPath, bad);
      throws(() => updateArena(options.arenaPath, {}), Corrupt, `byte ${at}`);
    }
    Deno.writeFileSync(options.arenaPath, good.subarray(0, 100));
    throws(() => updateArena(options.arenaPath, {}), Corrupt);
  }));

Deno.test("layOutFiles() lays a thousand files out in tens of milliseconds", () =>
  withDirectory((directory) => {
    const options = optionsFor(
      directory,
      Array.from({ length: 1000 }, (_, i) => [1663, 1 + i % 3, 1000 + i, 0, 10]),
    );
    const times = Array.from({ length: 5 }, () => {
      const began = performance.now();
      layOutFiles(options);
      return performance.now() - began;
    });
    console.log(`1000 files: new ${times[0]!.toFixed(1)} ms, again ${times[4]!.toFixed(1)} ms`);
    ok(Math.min(...times) < 200);
  }));
