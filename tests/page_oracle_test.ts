/**
 * The oracle of the whole system: after a varied workload every page that PostgreSQL has on disk is
 * the page that the pageserver serves, on a timeline from its beginning, after a restart, on a
 * branch, and from image layers and rewritten delta layers that the pageserver has made meanwhile.
 */
import assert from "node:assert/strict";
import { FORK_MAIN, FORK_VM, PAGE_SIZE } from "../libs/postgres/constants.ts";
import { isNewPage, pageLower, pageSpecial, pageUpper } from "../libs/postgres/page.ts";
import type { RelTag } from "../libs/postgres/relation.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import { PageserverClient } from "../pageserver/client.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { seededRandom } from "./load/random.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { PageOracle } from "./page_oracle/oracle.ts";
import { firstWorkload, openSession, runAll, secondWorkload } from "./page_oracle/workload.ts";

const COPIED_ROWS = 30_000;

/** Writes everything back and compares it. */
async function compare(
  neon: TestNeon,
  endpoint: string,
  port: number,
  spoil?: (tag: RelTag, page: Uint8Array, block: number) => void,
): Promise<PageOracle> {
  const client = await openSession(port);
  await client.query("CHECKPOINT");
  const value = async (sql: string) => (await client.query(sql)).rows[0]?.[0] ?? undefined;
  const lsn = await value("SELECT pg_current_wal_flush_lsn()");
  const byWal = await value("SELECT oid FROM pg_database WHERE datname = 'by_wal'");
  client.close();
  return await PageOracle.compare(neon, {
    endpoint,
    branch: endpoint,
    lsn: parseLsn(lsn!),
    copiedByWal: [Number(byWal)],
    ...(spoil === undefined ? {} : { spoil }),
  });
}

function check(what: string, { forks, pages, slruPages, differences }: PageOracle): void {
  console.log(
    `${what}: ${forks} forks, ${pages.written} pages that PostgreSQL wrote, ${pages.fetched} ` +
      `that it fetched, ${pages.absent} that it has not read; ${slruPages} SLRU pages`,
  );
  assert.deepEqual(differences.slice(0, 20), [], `${differences.length} differences`);
}

/** Makes images of every page that is read from records. */
async function makeImages(neon: TestNeon, branch: string, pagesMin: number): Promise<void> {
  const made = JSON.parse(
    await neon.run(
      ...["timeline", "compact", "--branch-name", branch],
      ...["--force-image-layer-creation", "--json"],
    ),
  );
  console.log(`${made.image_pages} images on ${branch}`);
  assert.equal(made.failed_pages, 0, made.first_failure);
  assert.ok(made.image_pages >= pagesMin);
}

/** Has delta layers rewritten as soon as there are two, into small ones. */
async function rewriteSoon(neon: TestNeon): Promise<void> {
  await neon.run(
    ...["tenant", "config", "-c", "compaction_threshold:2"],
    ...["-c", "compaction_target_size:200000", "-c", "compaction_period:0s"],
  );
}

/** Flushes and compacts a branch, without images of all pages; returns the layers replaced. */
async function compact(neon: TestNeon, branch: string): Promise<number> {
  const made = JSON.parse(await neon.run("timeline", "compact", "--branch-name", branch, "--json"));
  assert.deepEqual([made.failed_pages, made.delta_failure], [0, null]);
  console.log(
    `${made.replaced_delta_layers} delta layers on ${branch} became ${made.delta_layers}`,
  );
  return made.replaced_delta_layers;
}

/** Starts a pageserver with empty caches. */
async function restartPageserver(neon: TestNeon): Promise<void> {
  await neon.killRole("pageserver");
  await neon.local.start();
}

testWithNeon("PostgreSQL and the pageserver agree on every page", {}, async (neon) => {
  await rewriteSoon(neon);
  let { port } = await neon.local.startEndpoint("main");
  const settings = await openSession(port);
  await runAll(settings, [
    "ALTER SYSTEM SET autovacuum = off",
    "ALTER SYSTEM SET max_prepared_transactions = 5",
  ]);
  settings.close();
  const restart = async () => {
    await neon.local.stopEndpoint("main");
    ({ port } = await neon.local.startEndpoint("main"));
  };
  await restart();
  const copyFile = `${neon.local.directory}/compute/copied.txt`;
  const lines = Array.from({ length: COPIED_ROWS }, (_, i) => `${i}\t${"z".repeat(i % 60)}\n`);
  Deno.writeTextFileSync(copyFile, lines.join(""));

  await firstWorkload(port, copyFile);
  const first = await compare(neon, "main", port);
  check("first run", first);
  assert.ok(first.pages.written > 3000);

  await makeImages(neon, "main", 500);
  await restartPageserver(neon);
  check("from images", await compare(neon, "main", port));

  await restart();
  await secondWorkload(port);
  const second = await compare(neon, "main", port);
  check("after a restart", second);
  assert.ok(second.pages.written > 500 && second.pages.absent > 100);
  assert.ok(await compact(neon, "main") > 0);
  await restartPageserver(neon);
  check("from rewritten layers", await compare(neon, "main", port));

  await neon.local.createBranch("branch");
  const branch = await neon.local.startEndpoint("branch");
  await secondWorkload(branch.port);
  const third = await compare(neon, "branch", branch.port);
  check("on a branch", third);
  assert.ok(third.pages.written > 300);
  await makeImages(neon, "main", 50);
  await makeImages(neon, "branch", 50);
  await restartPageserver(neon);
  check("on a branch, from images", await compare(neon, "branch", branch.port));
  check("its ancestor, meanwhile", await compare(neon, "main", port));

  await noticesFlippedBytes(neon, port);
});

testWithNeon("they agree after kills under load, too", { safekeepers: 3 }, async (neon) => {
  await rewriteSoon(neon);
  const random = seededRandom("page oracle");
  const pageserver = new PageserverClient(
    neon.local.environment().config.pageservers[0]!.listen_http_addr,
  );
  let main = await neon.local.startEndpoint("main");
  await createLedger(neon.connect(main));
  await neon.connect(main)`alter system set autovacuum = off`;
  await neon.connect(main)`create index on ledger(filler)`;
  const writers = new Writers(main.port, 4);
  writers.start();
  let replaced = 0;
  try {
    // Postgres first: what it has in its files afterwards is all of its own run.
    for (const victim of ["postgres", "compute", "pageserver", "safekeeper 2", "pageserver"]) {
      await writers.more(random.between(50, 300));
      if (victim === "postgres") neon.killPostgres("main");
      else await neon.killRole(victim);
      await neon.local.start();
      main = await neon.local.startEndpoint("main");
      const client = await openSession(main.port);
      await runAll(client, [
        `UPDATE ledger SET filler = filler || 'u' WHERE number % 7 = ${random.between(0, 6)}`,
        `DELETE FROM ledger WHERE writer < 0`,
        "VACUUM ledger",
        "INSERT INTO ledger SELECT -i, i, repeat('n', i % 300) FROM generate_series(1, 5000) i",
      ]);
      client.close();
      // From here on a pageserver that dies reads its WAL again.
      await pageserver.checkpoint(neon.tenant.tenantId, neon.tenant.timelineId);
      const { tenantId, timelineId } = neon.tenant;
      const made = await pageserver.compact(tenantId, timelineId, random.between(0, 2) === 0);
      assert.equal(made.delta_failure, null);
      replaced += made.replaced_delta_layers;
    }
    await writers.more(100);
  } finally {
    await writers.stop();
  }
  assert.ok(replaced > 2, `${replaced} delta layers were replaced`);
  const oracle = await compare(neon, "main", main.port);
  check("after kills", oracle);
  assert.ok(oracle.pages.written > 200);
});

/** One flipped byte in a tuple of each kind of page is one difference. */
async function noticesFlippedBytes(neon: TestNeon, port: number): Promise<void> {
  const spoilt: string[] = [];
  const kinds = new Set<string>();
  const oracle = await compare(neon, "main", port, (tag, page, block) => {
    const view = new DataView(page.buffer);
    if (isNewPage(view, 0) || tag.fork !== FORK_MAIN && tag.fork !== FORK_VM) return;
    const kind = tag.fork === FORK_VM ? "map" : `special of ${PAGE_SIZE - pageSpecial(view, 0)}`;
    if (kinds.has(kind)) return;
    const hasItems = pageUpper(view, 0) < pageSpecial(view, 0) && pageLower(view, 0) > 28;
    if (kind !== "map" && (!hasItems || kind === "special of 8")) return;
    kinds.add(kind);
    // The end of the last tuple is data, whatever its header is; so are all bytes of a map.
    const at = kind === "map" ? 24 : pageSpecial(view, 0) - 9;
    page[at]! ^= 0x01;
    spoilt.push(`${tag.rel}.${tag.fork}.${block}`);
  });
  assert.deepEqual([...kinds].sort(), ["map", "special of 0", "special of 16"]);
  assert.equal(oracle.differences.length, spoilt.length, oracle.differences.join("\n"));
}
