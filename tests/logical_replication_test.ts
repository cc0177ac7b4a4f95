/**
 * Logical replication out of endpoints: a subscriber goes on by itself when the publisher was
 * stopped or killed, and has every row exactly once; slots outlive both, and branches have none.
 */
import assert from "node:assert/strict";
import { readSlotNames } from "../compute/carried/slot_names.ts";
import type { TenantId } from "../libs/utils/id.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { testedVersions } from "./support/postgres_versions.ts";
import { commitsWaiting } from "./support/commits_waiting.ts";
import { until } from "./support/waiting.ts";

const LOGICAL = { settings: { wal_level: "logical" } };
/** Otherwise a subscriber waits 5 s before it connects again. */
const EAGER = { settings: { wal_retrieve_retry_interval: "100ms" } };
const TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)";

async function startSubscriber(neon: TestNeon, tenant: TenantId): Promise<Sql> {
  return neon.connect(await neon.local.startEndpoint("subscriber", { tenant, ...EAGER }));
}

/** A subscriber on a timeline of its own, subscribed to the table "t" of the publisher. */
async function subscribe(neon: TestNeon, tenant: TenantId, publisherPort: number): Promise<Sql> {
  const subscriber = await startSubscriber(neon, tenant);
  await subscriber.unsafe(TABLE);
  await subscriber.unsafe(`CREATE SUBSCRIPTION s CONNECTION
    'host=127.0.0.1 port=${publisherPort} user=cloud_admin dbname=postgres' PUBLICATION p`);
  return subscriber;
}

/** Inserts rows, one a transaction, until it is told to stop or the connection is lost. */
class Writer {
  readonly #sql: Sql;
  readonly #next: () => number;
  #stopped = false;
  readonly done: Promise<void>;

  constructor(sql: Sql, next: () => number) {
    this.#sql = sql;
    this.#next = next;
    this.done = this.#run().catch(() => {}); // the connection is lost with the publisher
  }

  async #run(): Promise<void> {
    while (!this.#stopped) await this.#sql`INSERT INTO t VALUES (${this.#next()}, 'row')`;
  }

  stop(): Promise<void> {
    this.#stopped = true;
    return this.done;
  }
}

/** Rows in a form that tells two sets apart. */
async function rowsOf(sql: Sql): Promise<string> {
  const [row] = await sql.unsafe(
    `SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY id)), '') AS rows
     FROM t`,
  );
  return row!["rows"];
}

async function untilEqual(publisher: Sql, subscriber: Sql): Promise<void> {
  const expected = await rowsOf(publisher);
  await until("the subscriber has every row once", async () => {
    return await rowsOf(subscriber) === expected;
  });
}

/** The publisher ends with `end` under write load and with a transaction open; both go on. */
async function restartUnderLoad(
  neon: TestNeon,
  subscriber: Sql,
  next: () => number,
  end: () => Promise<void>,
): Promise<void> {
  const endpoint = await neon.local.startEndpoint("main");
  const idle = neon.connect(endpoint);
  await idle.unsafe(`BEGIN; INSERT INTO t VALUES (${next()}, 'open across the restart')`);
  const writers = [1, 2].map(() => new Writer(neon.connect(endpoint), next));
  const [before] = await subscriber`SELECT count(*)::int AS n FROM t`;
  await until("rows arrive", async () => {
    const [now] = await subscriber`SELECT count(*)::int AS n FROM t`;
    return now!["n"] > before!["n"] + 50;
  });
  await end();
  await Promise.all(writers.map((writer) => writer.stop()));
  const again = neon.connect(await neon.local.startEndpoint("main"));
  await again`INSERT INTO t VALUES (${next()}, 'after the restart')`;
  await untilEqual(again, subscriber);
}

testWithNeon("a subscriber goes on when its publisher was stopped or killed", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main", LOGICAL);
  const publisher = neon.connect(endpoint);
  await publisher.unsafe(
    `${TABLE}; INSERT INTO t SELECT i, 'first' FROM generate_series(1, 100) i`,
  );
  await publisher.unsafe("CREATE PUBLICATION p FOR TABLE t");
  const { tenantId: tenant } = await neon.local.createTenant();
  const subscriber = await subscribe(neon, tenant, endpoint.port);
  let id = 1000;
  const next = () => id++;
  await untilEqual(publisher, subscriber);
  await restartUnderLoad(neon, subscriber, next, () => neon.local.stopEndpoint("main"));
  await restartUnderLoad(neon, subscriber, next, async () => neon.killPostgres("main"));
  await restartUnderLoad(neon, subscriber, next, () => neon.local.stopEndpoint("main"));
});

testWithNeon("a subscriber is not given what no safekeeper has", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main", LOGICAL);
  const publisher = neon.connect(endpoint);
  await publisher.unsafe(`${TABLE}; CREATE PUBLICATION p FOR TABLE t`);
  const { tenantId: tenant } = await neon.local.createTenant();
  const subscriber = await subscribe(neon, tenant, endpoint.port);
  const observer = neon.connect(endpoint);
  await observer`SELECT pg_create_logical_replication_slot('seen', 'test_decoding')`;
  await publisher`INSERT INTO t VALUES (1, 'everywhere')`;
  await untilEqual(publisher, subscriber);
  await untilSafe(neon, publisher, ["s", "seen"]);
  await neon.killRole("compute");
  const waiting = publisher`INSERT INTO t VALUES (2, 'in doubt')`.then(() => {}, () => {});
  await commitsWaiting(observer, 1);
  // What a walsender would send
  const seen = await observer`SELECT data FROM pg_logical_slot_peek_changes('seen', NULL, NULL)`;
  const rows = seen.filter(({ data }) => data.includes("INSERT"));
  assert.deepEqual(rows.map(({ data }) => /'.*'/.exec(data)?.[0]), ["'everywhere'"]);
  neon.killPostgres("main");
  neon.killPostgres("subscriber");
  await waiting;
  await neon.local.start();
  const again = neon.connect(await neon.local.startEndpoint("main"));
  await again`INSERT INTO t VALUES (3, 'after the restart')`;
  await untilEqual(again, await startSubscriber(neon, tenant));
});

/** All versions with NEON_TEST_MATRIX=1; else one that flushes messages by themselves, one not. */
const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || [14, 17].includes(major)
);

for (const pgVersion of VERSIONS) {
  const name = `a slot of PostgreSQL ${pgVersion} outlives a kill of it; branches have none`;
  testWithNeon(name, { pgVersion }, testSlots);
}

async function testSlots(neon: TestNeon): Promise<void> {
  const main = neon.connect(await neon.local.startEndpoint("main", LOGICAL));
  await main.unsafe(TABLE);
  await main`SELECT pg_create_logical_replication_slot('kept', 'test_decoding')`;
  await main`SELECT pg_create_logical_replication_slot('dropped', 'test_decoding')`;
  await main`SELECT pg_create_logical_replication_slot('temporary', 'test_decoding', true)`;
  await main`SELECT pg_create_physical_replication_slot('physical')`;
  await main`INSERT INTO t VALUES (1, 'before')`;
  await main`SELECT pg_drop_replication_slot('dropped')`;
  await untilSafe(neon, main, ["kept"]);
  await main.unsafe("VACUUM FULL pg_class"); // decoding must find the rows where they are now
  neon.killPostgres("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual(await slotNames(again), ["kept"]);
  const pgdata = `${neon.local.directory}/compute/endpoints/main/pgdata`;
  assert.ok([...Deno.readDirSync(`${pgdata}/pg_logical/mappings`)].length > 0);
  await again`INSERT INTO t VALUES (2, 'after')`;
  const changes = await again`SELECT data FROM pg_logical_slot_get_changes('kept', NULL, NULL)
    WHERE data LIKE 'table%'`;
  assert.deepEqual(changes.map(({ data }) => data), [
    "table public.t: INSERT: id[integer]:1 v[text]:'before'",
    "table public.t: INSERT: id[integer]:2 v[text]:'after'",
  ]);
  await neon.run("timeline", "branch", "--branch-name", "twig");
  const twig = neon.connect(await neon.local.startEndpoint("twig", LOGICAL));
  assert.deepEqual(await slotNames(twig), []);
  assert.equal((await twig`SELECT * FROM t`).length, 2);
  // An orderly stop carries what the consumer has confirmed, however little that is
  await neon.local.stopEndpoint("main");
  const third = neon.connect(await neon.local.startEndpoint("main"));
  const rest = await third`SELECT data FROM pg_logical_slot_get_changes('kept', NULL, NULL)
    WHERE data LIKE 'table%'`;
  assert.deepEqual([...rest], []);
  await third`SELECT pg_drop_replication_slot('kept')`;
  await until("the catalogs are let go", async () => {
    const rows = await third`SELECT FROM pg_replication_slots WHERE catalog_xmin IS NOT NULL`;
    return rows.count === 0;
  });
}

testWithNeon("a slot that was dropped without a host stays dropped", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main", LOGICAL));
  await main`SELECT pg_create_logical_replication_slot('a', 'test_decoding')`;
  await main`SELECT pg_create_logical_replication_slot('b', 'test_decoding')`;
  await untilSafe(neon, main, ["a", "b"]);
  await neon.killRole("compute");
  await main`SELECT pg_drop_replication_slot('a')`;
  await neon.local.start(); // it takes Postgres over
  await untilNoted(neon, ["b"]);
  neon.killPostgres("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual(await slotNames(again), ["b"]);
});

/** Waits until the host has noted that the storage has these slots, or is being told of them. */
async function untilNoted(neon: TestNeon, names: string[]): Promise<void> {
  const path = `${neon.local.directory}/compute/endpoints/main/slots`;
  await until(`the slots ${names} are noted`, () => {
    return JSON.stringify(readSlotNames(path)) === JSON.stringify(names);
  });
}

/** Waits until the storage has exactly these slots: a later one has come and gone. */
async function untilSafe(neon: TestNeon, sql: Sql, names: string[]): Promise<void> {
  await sql`SELECT pg_create_logical_replication_slot('zz_later', 'test_decoding')`;
  await untilNoted(neon, [...names, "zz_later"]);
  await sql`SELECT pg_drop_replication_slot('zz_later')`;
  await untilNoted(neon, names);
}

async function slotNames(sql: Sql): Promise<string[]> {
  const rows = await sql`SELECT slot_name FROM pg_replication_slots
    WHERE slot_name <> 'neon_wal_proposer' ORDER BY 1`;
  return rows.map(({ slot_name }) => slot_name);
}
