/**
 * A full disk under each role in turn: an error that says so, everything that does not need the
 * space goes on, service again when there is space, and every acknowledged row is there. The disks
 * are small file systems in memory, which only root can mount. A safekeeper's is in
 * safekeeper/full_disk_test.ts.
 */
import assert from "node:assert/strict";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { pageserverClient } from "../cli/control_plane/clients.ts";
import { initEnvironment } from "../cli/control_plane/init.ts";
import { silentProgress } from "../cli/control_plane/progress.ts";
import { SmallDisk } from "../libs/utils/small_disk_fixture.ts";
import { runInside } from "./bad_input/run_inside.ts";
import { type Sql, type TestNeon, withNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

const ROW_BYTES = 1000;
const NO_SPACE = /[Nn]o space left on device/;

/** Rows that were acknowledged, and must be there ever after. */
class Ledger {
  acknowledged = 0;

  async add(sql: Sql, rows: number): Promise<void> {
    await sql`insert into ledger select g, repeat('x', ${ROW_BYTES})
      from generate_series(${this.acknowledged}::int, ${this.acknowledged + rows - 1}::int) g`;
    this.acknowledged += rows;
  }

  async check(sql: Sql): Promise<void> {
    const [row] = await sql`select count(*)::int as rows from ledger`;
    assert.equal(row?.["rows"], this.acknowledged);
  }
}

/** Each role's directory is a disk of its own. */
interface Disks {
  readonly pageserver: SmallDisk;
  readonly broker: SmallDisk;
  readonly compute: SmallDisk;
  readonly records: SmallDisk;
}

async function underPageserver(neon: TestNeon, sql: Sql, ledger: Ledger, disk: SmallDisk) {
  const { tenantId, timelineId } = neon.tenant;
  const pageserver = pageserverClient(neon.local.environment());
  disk.fill();
  await ledger.add(sql, 12_000); // more than the pageserver has buffers for
  await assert.rejects(pageserver.checkpoint(tenantId, timelineId), NO_SPACE);
  const before = await pageserver.timeline(tenantId, timelineId);
  await ledger.check(sql);
  const refused = await runInside(neon.local.directory, [
    ...["timeline", "branch", "--branch-name", "full", "--ancestor-start-lsn"],
    before.min_readable_lsn,
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^error: .*[Nn]o space left on device.*\n$/);
  assert.equal((await pageserver.timelines(tenantId)).length, 1, "no half made branch is left");
  disk.free();
  const { lsn } = await neon.local.createBranch("after_pageserver");
  await until("the pageserver has flushed by itself", async () => {
    const { disk_consistent_lsn } = await pageserver.timeline(tenantId, timelineId);
    return disk_consistent_lsn !== before.disk_consistent_lsn;
  });
  assert.ok(lsn > before.last_record_lsn);
  await checkBranch(neon, "after_pageserver", ledger);
}

/** A branch is read from the pageserver alone. */
async function checkBranch(neon: TestNeon, name: string, ledger: Ledger): Promise<void> {
  await ledger.check(neon.connect(await neon.local.startEndpoint(name)));
  await neon.local.stopEndpoint(name);
}

async function underBroker(neon: TestNeon, sql: Sql, ledger: Ledger, disk: SmallDisk) {
  disk.fill();
  await neon.run("pageserver", "restart"); // subscribes anew, which is logged
  await ledger.add(sql, 100);
  await neon.local.createBranch("after_broker");
  await checkBranch(neon, "after_broker", ledger);
  disk.free();
}

async function underCompute(neon: TestNeon, sql: Sql, ledger: Ledger, disk: SmallDisk) {
  const nextSegment = () =>
    sql`select pg_logical_emit_message(true, 'fill', ''), pg_switch_wal()`.execute();
  await nextSegment(); // what it reads is here then
  disk.fill();
  // No room for a table's pages is an error; none for WAL, and PostgreSQL gives up
  await assert.rejects(async () => {
    for (;;) await ledger.add(sql, 1000);
  }, /could not extend file .*No space left on device/);
  await ledger.check(sql);
  await until("the endpoint is down", async () => {
    await nextSegment().catch(() => {});
    const [main] = (await neon.local.listEndpoints()).filter(({ endpoint }) => endpoint === "main");
    return main!.status === "crashed";
  });
  await neon.closeClients();
  disk.fill();
  const refused = await runInside(neon.local.directory, ["endpoint", "start", "main"]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, NO_SPACE);
  disk.free();
  const again = neon.connect(await neon.local.startEndpoint("main"));
  await ledger.check(again);
  await ledger.add(again, 1000);
}

async function underRecords(neon: TestNeon, disk: SmallDisk) {
  disk.fill();
  const create = ["endpoint", "create", "late"];
  const refused = await runInside(neon.local.directory, create);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^error: .*[Nn]o space left on device.*\n$/);
  disk.free();
  assert.equal(
    (await neon.local.listEndpoints()).some(({ endpoint }) => endpoint === "late"),
    false,
  );
  assert.equal((await runInside(neon.local.directory, create)).code, 0);
}

async function onSmallDisks(body: (directory: string, disks: Disks) => Promise<void>) {
  const parent = Deno.makeTempDirSync({ prefix: "neon-" });
  Deno.chmodSync(parent, 0o755);
  const directory = `${parent}/.neon`;
  try {
    const config = configOnFreePorts(1, 17);
    await initEnvironment(directory, { config }, silentProgress);
    const mounted: SmallDisk[] = [];
    const mount = async (name: string, mebibytes: number) => {
      Deno.mkdirSync(`${directory}/${name}`, { recursive: true });
      const disk = await SmallDisk.mount(mebibytes, `${directory}/${name}`);
      if (disk === undefined) throw new Error("Cannot mount a small disk");
      mounted.push(disk);
      return disk;
    };
    try {
      await body(directory, {
        pageserver: await mount("pageserver_1", 96),
        broker: await mount("storage_broker", 1),
        compute: await mount("compute", 256),
        records: await mount("endpoints", 1),
      });
    } finally {
      for (const disk of mounted) await disk[Symbol.asyncDispose]();
    }
  } finally {
    Deno.removeSync(parent, { recursive: true });
  }
}

const probe = await SmallDisk.mount(1);
await probe?.[Symbol.asyncDispose]();

Deno.test({
  name: "a full disk under any role is an error, and passes with nothing lost",
  ignore: probe === undefined,
  fn: () =>
    onSmallDisks(async (directory, disks) => {
      await withNeon({ directory }, async (neon) => {
        const ledger = new Ledger();
        const sql = neon.connect(await neon.local.startEndpoint("main"));
        await sql`create table ledger(id int primary key, filler text)`;
        await ledger.add(sql, 10);
        await underRecords(neon, disks.records);
        await underPageserver(neon, sql, ledger, disks.pageserver);
        await underBroker(neon, sql, ledger, disks.broker);
        await underCompute(neon, sql, ledger, disks.compute);
      });
    }),
});
