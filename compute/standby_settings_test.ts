import assert from "node:assert/strict";
import { defaultWalParameters } from "../libs/postgres/empty_cluster_fixture.ts";
import { BadRequest } from "../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import type { EndpointSpec } from "./client.ts";
import { connectionInfo, standbySettings } from "./standby_settings.ts";

const SPEC: EndpointSpec = {
  endpoint_id: "reports",
  tenant_id: parseTenantId("11".repeat(16)),
  timeline_id: parseTimelineId("22".repeat(16)),
  mode: "Replica",
  pg_version: 17,
  pg_port: 55432,
  pg_bin_dir: "/pg/bin",
  pageserver: { host: "127.0.0.1", port: 64000 },
  safekeepers: [
    { id: 1, host: "127.0.0.1", pg_port: 5454 },
    { id: 2, host: "127.0.0.1", pg_port: 5455 },
  ],
};

function settingsOf(
  spec: Partial<EndpointSpec> = {},
  transactions = 0,
  limits: Partial<ReturnType<typeof defaultWalParameters>> = {},
): Map<string, string> {
  const parameters = { ...defaultWalParameters(), ...limits };
  return new Map(standbySettings({ spec: { ...SPEC, ...spec }, parameters, transactions }));
}

Deno.test("a replica streams from any of its safekeepers, a static endpoint from nobody", () => {
  const conninfo = connectionInfo(SPEC, SPEC.safekeepers);
  assert.match(conninfo, /^host=127\.0\.0\.1,127\.0\.0\.1 port=5454,5455 /);
  assert.match(conninfo, / options='-c timeline_id=(22){16} -c tenant_id=(11){16}' /);
  assert.doesNotMatch(conninfo, /passfile/);
  assert.equal(settingsOf().has("primary_conninfo"), false);
  assert.equal(settingsOf({ mode: { Static: "0/28" } }).get("primary_conninfo"), "");
});

Deno.test("limits are at least those of the WAL, and what was asked for", () => {
  const limits = { maxConnections: 300, maxLocksPerTransaction: 128 };
  const settings = settingsOf({ settings: { max_connections: "50", max_wal_senders: "40" } }, 0, {
    ...limits,
    maxPreparedTransactions: 7,
  });
  assert.equal(settings.get("max_connections"), "300");
  assert.equal(settings.get("max_locks_per_transaction"), "128");
  assert.equal(settings.get("max_wal_senders"), "40");
  assert.equal(settings.get("max_prepared_transactions"), "7");
});

Deno.test("many transactions in progress get room, up to a limit that is named", () => {
  const places = (transactions: number) =>
    settingsOf({}, transactions, { maxPreparedTransactions: 5 }).get("max_prepared_transactions");
  assert.deepEqual([places(0), places(65), places(66), places(65_000)], ["5", "5", "7", "1005"]);
  assert.throws(() => places(65_001), BadRequest);
  assert.throws(() => places(65_001), /65001 transactions .* has room for 65000/);
});

Deno.test("recovery_prefetch is off where there is one", () => {
  assert.equal(settingsOf({ pg_version: 14 }).has("recovery_prefetch"), false);
  assert.equal(settingsOf({ pg_version: 15 }).get("recovery_prefetch"), "off");
});

Deno.test("a replica's token is in a file, in no setting; its path is quoted as libpq reads it", () => {
  const spec = { ...SPEC, storage_auth_token: "ey.J.x" };
  const conninfo = connectionInfo(spec, SPEC.safekeepers, "/srv/it's\\here/passfile");
  assert.match(conninfo, / passfile='\/srv\/it\\'s\\\\here\/passfile'$/);
  const all = [conninfo, ...settingsOf(spec).values()];
  assert.ok(!all.some((value) => value.includes("ey.J.x")));
});
