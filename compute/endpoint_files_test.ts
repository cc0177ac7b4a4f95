/** The files of an endpoint: directory, state, ready files, unpacking a basebackup. */
import assert from "node:assert/strict";
import { PgClient } from "../libs/pgwire/client.ts";
import { servePg } from "../libs/pgwire/server.ts";
import { encodeControlFile, shutdownControlFile } from "../libs/postgres/control_file.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { INVALID_LSN, parseLsn } from "../libs/utils/lsn.ts";
import { tarEnd, tarHeader, tarPadding } from "../libs/utils/tar.ts";
import { fetchBasebackup, type FileMaking, writeStartWal } from "./basebackup.ts";
import type { EndpointSpec } from "./client.ts";
import { Endpoint } from "./endpoint.ts";
import { EndpointDirectory, exists } from "./endpoint_directory.ts";
import type { HostServices } from "./endpoint_run.ts";
import { type EndpointState, readEndpointState, writeEndpointState } from "./endpoint_state.ts";
import { ReadyDirectories } from "./ready_directories.ts";
import { ReadyFiles } from "./ready_files.ts";
import { until } from "../tests/support/waiting.ts";
import { defaultWalParameters, emptyCheckPoint } from "../libs/postgres/empty_cluster_fixture.ts";

const SEGMENT_SIZE = 16 * 1024 * 1024;

async function withDirectory(body: (path: string) => Promise<void> | void): Promise<void> {
  const path = Deno.makeTempDirSync({ prefix: "compute_test_" });
  try {
    await body(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

const SPEC: EndpointSpec = {
  endpoint_id: "ep",
  tenant_id: newTenantId(),
  timeline_id: newTimelineId(),
  mode: "Primary",
  pg_version: 17,
  pg_port: 5555,
  pg_bin_dir: "/pg/bin",
  pageserver: { host: "127.0.0.1", port: 1 },
  safekeepers: [{ id: 1, host: "127.0.0.1", pg_port: 2 }],
};

Deno.test("an endpoint's state comes back as it was written, and damage is noticed", async () => {
  await withDirectory((root) => {
    const path = `${root}/state`;
    assert.equal(readEndpointState(path), undefined);
    const state: EndpointState = {
      spec: SPEC,
      term: 3,
      startLsn: parseLsn("0/147C9C0"),
      history: [{ term: 0, lsn: parseLsn("0/1000000") }, { term: 3, lsn: parseLsn("0/147C9C0") }],
      standbyName: "neon_1",
      bootId: "b",
      process: { pid: 7, startTime: "123" },
    };
    writeEndpointState(path, state);
    assert.deepEqual(readEndpointState(path), state);
    const bytes = Deno.readFileSync(path);
    bytes[40]! ^= 1;
    Deno.writeFileSync(path, bytes);
    assert.throws(() => readEndpointState(path), Corrupt);
  });
});

Deno.test("what cannot be swept is told of, and done without", async () => {
  await withDirectory(async (root) => {
    Deno.writeTextFileSync(`${root}/ep`, "no directory");
    await new EndpointDirectory(`${root}/ep`).sweep(() => Promise.reject());
  });
});

Deno.test("an endpoint that is deleted is not started in the middle of that", async () => {
  await withDirectory(async (root) => {
    const directory = new EndpointDirectory(`${root}/ep`);
    directory.create();
    const endpoint = new Endpoint({} as HostServices, directory, SPEC);
    const deleting = endpoint.delete();
    await assert.rejects(endpoint.start(SPEC, INVALID_LSN), /it was deleted meanwhile/);
    await deleting;
    assert.ok(!exists(directory.root));
  });
});

Deno.test("prepare() keeps ALTER SYSTEM settings and no other content", async () => {
  await withDirectory((root) => {
    const directory = new EndpointDirectory(`${root}/ep`);
    const none = new ReadyDirectories(`${root}/ready_data`);
    const prepare = () =>
      new TextDecoder().decode(directory.prepare(undefined, none).savedSettings);
    assert.equal(prepare(), "");
    const fill = () => {
      Deno.mkdirSync(`${directory.pgdata}/base/5`, { recursive: true });
      Deno.mkdirSync(`${directory.pgdata}/pg_replslot/s`, { recursive: true });
      Deno.writeTextFileSync(`${directory.pgdata}/base/5/1259`, "old");
      Deno.writeTextFileSync(`${directory.pgdata}/postgresql.auto.conf`, "work_mem = '7MB'\n");
    };
    fill();
    directory.retireData(undefined, none); // an orderly stop: relation files may be emptied and used again
    assert.equal(prepare(), "work_mem = '7MB'\n");
    assert.ok(exists(`${directory.pgdata}/base/5/1259`));
    assert.ok(!exists(`${directory.pgdata}/pg_replslot/s`));
    assert.ok(!exists(`${directory.pgdata}/postgresql.auto.conf`));
    fill();
    Deno.writeTextFileSync(`${directory.pgdata}/postmaster.pid`, "1\n");
    directory.discardData(); // a crash: some process may still write to the old files
    assert.equal(prepare(), "work_mem = '7MB'\n");
    assert.deepEqual([...Deno.readDirSync(directory.pgdata)], []);
    const released: string[] = [];
    const release = (pgdata: string) => {
      released.push(pgdata);
      return Promise.reject(new Error("it is still in use"));
    };
    return directory.sweep(release).then(() => {
      assert.deepEqual(released, [`${directory.root}/discarded-0`]);
      const left = [...Deno.readDirSync(directory.root)].map(({ name }) => name);
      assert.ok(!left.some((name) => name.startsWith("discarded")));
    });
  });
});

Deno.test("sweep() finds nothing to do for an endpoint whose first start failed early", async () => {
  await withDirectory(async (root) => {
    const directory = new EndpointDirectory(`${root}/ep`);
    directory.discardData();
    await directory.sweep(() => Promise.reject(new Error("nothing was killed")));
    assert.ok(!exists(directory.root));
  });
});

Deno.test("ready files are moved in place, until there are none", async () => {
  await withDirectory((root) => {
    Deno.mkdirSync(`${root}/ready`);
    Deno.writeTextFileSync(`${root}/ready/4`, "");
    const ready = new ReadyFiles(`${root}/ready`);
    assert.ok(!ready.take(`${root}/no/such/directory`));
    assert.ok(ready.take(`${root}/a`));
    assert.ok(exists(`${root}/a`));
    assert.ok(!ready.take(`${root}/b`));
  });
});

Deno.test("a directory laid out ahead becomes the next pgdata, once and for its owner", async () => {
  await withDirectory(async (root) => {
    Deno.mkdirSync(`${root}/ready_data/7/base`, { recursive: true }); // an earlier host's
    const ready = new ReadyDirectories(`${root}/ready_data`, 1);
    const files = new Map([["base/5/1259", 16384], ["global/1262", 0]]);
    assert.equal(ready.take(`${root}/pgdata`, undefined), undefined);
    await ready.make(files, undefined);
    assert.equal(ready.take(`${root}/pgdata`, { uid: 1, gid: 1 }), undefined);
    const directory = new EndpointDirectory(`${root}/ep`);
    assert.deepEqual(directory.prepare(undefined, ready).empty, files);
    assert.equal(Deno.statSync(`${directory.pgdata}/base/5/1259`).size, 16384);
    assert.equal(ready.take(`${root}/other`, undefined), undefined);
    assert.deepEqual([...Deno.readDirSync(`${root}/ready_data`)], []);
    // After an orderly stop the files are used again, unless there is a directory without any of it
    const again = `${directory.pgdata}/base/5/1259`;
    Deno.writeTextFileSync(again, "old");
    directory.retireData(undefined, ready);
    assert.equal(directory.prepare(undefined, ready).empty, undefined);
    assert.equal(Deno.readTextFileSync(again), "old"); // to be emptied
    directory.retireData(undefined, ready);
    await ready.make(files, undefined);
    assert.deepEqual(directory.prepare(undefined, ready).empty, files);
    assert.equal(Deno.statSync(again).size, 16384);
  });
});

Deno.test("a data directory that was left is emptied, and is one of those that are ready", async () => {
  await withDirectory(async (root) => {
    const files = new Map([["base/5/1259", 16384], ["base/5/2619", 0], ["global/1262", 8192]]);
    const ready = new ReadyDirectories(`${root}/ready_data`, 1);
    const left = `${root}/left`;
    const leave = () => {
      for (const directory of ["base/5/1259.d", "base/7", "global", "pg_wal", "pg_tblspc"]) {
        Deno.mkdirSync(`${left}/${directory}`, { recursive: true });
      }
      const old = ["base/5/1259", "base/5/99", "base/7/1259", "pg_wal/1", "postmaster.opts"];
      for (const name of old) Deno.writeTextFileSync(`${left}/${name}`, "old");
      Deno.writeFileSync(`${left}/base/5/2619`, new Uint8Array(50_000).fill(1));
      Deno.writeTextFileSync(`${root}/not ours`, "stays");
      Deno.symlinkSync(`${root}/not ours`, `${left}/global/1262`);
      Deno.symlinkSync(root, `${left}/pg_tblspc/1`);
    };
    leave();
    assert.ok(!ready.recycle(left, undefined), "nobody knows what is wanted");
    await ready.make(files, undefined);
    assert.ok(!ready.recycle(left, { uid: 1, gid: 1 }), "it is of somebody else");
    assert.ok(ready.recycle(left, undefined));
    assert.ok(!exists(left));
    await until("there are two", () => {
      const names = [...Deno.readDirSync(`${root}/ready_data`)].map(({ name }) => name);
      return names.length === 2 && ready.take(`${root}/first`, undefined) !== undefined;
    });
    await until("the other one is ready", () => ready.take(`${root}/second`, undefined));
    for (const taken of ["first", "second"]) {
      const found: Record<string, number> = {};
      const walk = (below: string) => {
        for (const { name, isFile } of Deno.readDirSync(`${root}/${taken}/${below}`)) {
          const path = below === "" ? name : `${below}/${name}`;
          if (!isFile) walk(path);
          else found[path] = Deno.statSync(`${root}/${taken}/${path}`).size;
          if (isFile) {
            assert.ok(Deno.readFileSync(`${root}/${taken}/${path}`).every((byte) => byte === 0));
          }
        }
      };
      walk("");
      assert.deepEqual(found, Object.fromEntries(files), taken);
      const directories = [...Deno.readDirSync(`${root}/${taken}`)].map(({ name }) => name).sort();
      assert.deepEqual(directories, ["base", "global"]);
    }
    assert.equal(Deno.readTextFileSync(`${root}/not ours`), "stays");
    leave();
    assert.ok(!ready.recycle(left, undefined), "the next start of its own is to have it");
  });
});

function tarOf(entries: [string, Uint8Array | undefined][]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [name, body] of entries) {
    const type = body === undefined ? "directory" : "file";
    const sizeBytes = body?.length ?? 0;
    parts.push(tarHeader({ name, type, mode: 0o600, sizeBytes }));
    if (body !== undefined) parts.push(body, tarPadding(body.length));
  }
  parts.push(tarEnd());
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Runs `body` with a client of a pageserver that answers every command with this archive. */
async function withArchive(
  archive: Uint8Array,
  body: (client: PgClient, commands: string[]) => Promise<void>,
): Promise<void> {
  const commands: string[] = [];
  const server = servePg({
    hostname: "127.0.0.1",
    port: 0,
    async onConnection(session) {
      for (let query = await session.nextQuery(); query; query = await session.nextQuery()) {
        commands.push(query);
        await session.beginCopyOut();
        for (let at = 0; at < archive.length; at += 700) {
          await session.copyData(archive.subarray(at, at + 700));
        }
        await session.endCopyOut("SELECT");
      }
    },
  });
  const client = await PgClient.connect({ hostname: "127.0.0.1", port: server.port }, {});
  try {
    await body(client, commands);
  } finally {
    client.close();
    await server.close();
  }
}

function makingIn(root: string): FileMaking {
  return { owner: undefined, ready: new ReadyFiles(`${root}/ready`) };
}

Deno.test("fetchBasebackup() unpacks all but the map and pg_control", async () => {
  const start = parseLsn("0/147C9C0");
  const control = shutdownControlFile({
    version: pgVersion(17),
    systemId: 77n,
    start,
    checkPoint: emptyCheckPoint(),
    parameters: defaultWalParameters(),
    walSegmentSize: SEGMENT_SIZE,
    dataChecksumVersion: 0,
    nonce: new Uint8Array(32),
  });
  const archive = tarOf([
    ["base/", undefined],
    ["base/5/PG_VERSION", new TextEncoder().encode("17\n")],
    ["pg_twophase/", undefined],
    ["pg_twophase/000000000000002A", new Uint8Array(600)],
    ["postgresql.auto.conf", new Uint8Array(0)],
    ["lazy_files.map", new Uint8Array([1, 2, 3])],
    ["global/pg_control", encodeControlFile(control)],
  ]);
  await withDirectory((root) =>
    withArchive(archive, async (client, commands) => {
      const backup = await fetchBasebackup(client, SPEC, start, root, makingIn(root));
      assert.deepEqual(commands, [
        `basebackup ${SPEC.tenant_id} ${SPEC.timeline_id} 0/147C9C0 --lazy`,
      ]);
      assert.deepEqual([...backup.mapBytes], [1, 2, 3]);
      assert.equal(backup.preparedTransactions, 1);
      assert.deepEqual([...backup.relationFiles], ["base/5/PG_VERSION"]);
      assert.equal(Deno.readTextFileSync(`${root}/base/5/PG_VERSION`), "17\n");
      assert.ok(!exists(`${root}/global/pg_control`));
      assert.ok(!exists(`${root}/postgresql.auto.conf`));
      writeStartWal(root, start, parseLsn("0/147C948"), backup.control, makingIn(root));
      const segment = Deno.statSync(`${root}/pg_wal/000000010000000000000001`);
      assert.equal(segment.size, SEGMENT_SIZE);
      const elsewhere = parseLsn("0/2000000");
      assert.throws(
        () => writeStartWal(root, elsewhere, start, backup.control, makingIn(root)),
        /Cannot start at 0\/2000000: the basebackup is of 0\/147C9C0/,
      );
    })
  );
});

Deno.test("fetchBasebackup() refuses names outside of the directory", async () => {
  const archive = tarOf([["../evil", new Uint8Array(1)]]);
  await withDirectory((root) =>
    withArchive(archive, async (client) => {
      await assert.rejects(
        fetchBasebackup(client, SPEC, parseLsn("0/10"), root, makingIn(root)),
        /it names "\.\.\/evil"/,
      );
    })
  );
});
