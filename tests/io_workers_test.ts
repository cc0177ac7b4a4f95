/**
 * PostgreSQL 18 as it comes, with I/O workers: they fetch cold pages for many sessions at once, and
 * what they cannot fetch is an error of the query that wanted it.
 */
import assert from "node:assert/strict";
import { updateArena } from "../compute/lazy_files/arena.ts";
import { testWithNeon } from "./harness.ts";
import { testedVersions } from "./support/postgres_versions.ts";

const TABLES = 6;
const ROWS = 20_000;

testWithNeon("I/O workers read cold pages, and their errors reach the query", {}, async (neon) => {
  if (!testedVersions().includes(18)) return;
  const { tenantId } = await neon.local.createTenant({ pgVersion: 18 });
  const start = () => neon.local.startEndpoint("main", { tenant: tenantId });
  const names = Array.from({ length: TABLES }, (_, i) => `cold${i}`);
  const writer = neon.connect(await start());
  for (const name of names) {
    await writer.unsafe(`CREATE TABLE ${name} AS
      SELECT i, repeat('x', 100) AS filler FROM generate_series(1, ${ROWS}) i`);
  }
  const restart = async () => {
    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    const endpoint = await start();
    const sessions = names.map(() => neon.connect(endpoint));
    const warm = (name: string) => `SELECT sum(i) FROM ${name} WHERE false`;
    await Promise.all(sessions.map((sql, i) => sql.unsafe(warm(names[i]!))));
    return sessions;
  };
  const expected = names.map(() => [{ sum: String(ROWS * (ROWS + 1) / 2) }]);
  const readAll = (sessions: typeof writer[]) =>
    sessions.map(async (sql, i) => [...await sql.unsafe(`SELECT sum(i) FROM ${names[i]}`)]);

  let sessions = await restart();
  const [workers] = await sessions[0]!`
    SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type = 'io worker'`;
  assert.ok(workers!["n"] > 0);
  assert.deepEqual(await Promise.all(readAll(sessions)), expected);

  sessions = await restart();
  updateArena(`${neon.local.directory}/compute/endpoints/main/arena`, { retrySeconds: 1 });
  await neon.killRole("pageserver");
  for (const reading of await Promise.allSettled(readAll(sessions))) {
    assert.equal(reading.status, "rejected");
    assert.equal(reading.reason.code, "58030", String(reading.reason));
  }
  await neon.local.start();
  assert.deepEqual(await Promise.all(readAll(sessions)), expected);
});
