/** What Postgres may not be talked out of, and what may be set. */
import assert from "node:assert/strict";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { EndpointSpec } from "./client.ts";
import { fixedSettings, postgresConf } from "./postgres_settings.ts";

function specOf(pgVersion: number, settings: Record<string, string> = {}): EndpointSpec {
  return {
    endpoint_id: "ep",
    tenant_id: newTenantId(),
    timeline_id: newTimelineId(),
    mode: "Primary",
    pg_version: pgVersion,
    pg_port: 5555,
    pg_bin_dir: "/pg/bin",
    pageserver: { host: "127.0.0.1", port: 1 },
    safekeepers: [{ id: 1, host: "127.0.0.1", pg_port: 2 }],
    settings,
  };
}

function fixed(
  spec: EndpointSpec,
  preparedTransactions = 0,
  savedSettings = "",
  logicalSlots = 0,
) {
  return new Map(fixedSettings({
    spec,
    standbyName: "neon_x",
    preparedTransactions,
    logicalSlots,
    withoutSubscriptions: false,
    savedSettings,
  }));
}

Deno.test("fixedSettings() holds what the storage depends on, whatever is asked for", () => {
  const settings = fixed(specOf(17, { fsync: "on", restart_after_crash: "on" }));
  assert.equal(settings.get("fsync"), "off");
  assert.equal(settings.get("full_page_writes"), "off");
  assert.equal(settings.get("restart_after_crash"), "off");
  assert.equal(settings.get("synchronous_standby_names"), "neon_x");
  assert.equal(settings.get("max_slot_wal_keep_size"), "-1");
  assert.equal(settings.get("wal_level"), "replica");
  assert.equal(fixed(specOf(17, { wal_level: "logical" })).get("wal_level"), "logical");
  assert.equal(fixed(specOf(17, { wal_level: "minimal" })).get("wal_level"), "replica");
});

Deno.test("fixedSettings() has WAL synced by fdatasync where the library waits in that", () => {
  const settings = new Map(fixedSettings({
    spec: specOf(17, { fsync: "off", wal_sync_method: "open_sync" }),
    standbyName: undefined,
    preparedTransactions: 0,
    logicalSlots: 0,
    withoutSubscriptions: false,
    savedSettings: "",
  }));
  assert.equal(settings.get("fsync"), "on");
  assert.equal(settings.get("wal_sync_method"), "fdatasync");
  assert.equal(settings.get("synchronous_standby_names"), "");
  assert.equal(settings.get("synchronized_standby_slots"), "");
  assert.equal(settings.get("full_page_writes"), "off");
});

Deno.test("fixedSettings() names only settings that the version has", () => {
  assert.ok(!fixed(specOf(16)).has("summarize_wal"));
  assert.ok(!fixed(specOf(17)).has("io_method"));
  assert.equal(fixed(specOf(18)).get("idle_replication_slot_timeout"), "0");
});

Deno.test("fixedSettings() takes io_method = sync, never io_uring", () => {
  const method = (asked: Record<string, string>, saved = "") =>
    fixed(specOf(18, asked), 0, saved).get("io_method");
  assert.equal(method({}), "worker");
  assert.equal(method({ io_method: "sync" }), "sync");
  assert.equal(method({}, "io_method = 'sync'\n"), "sync");
  assert.equal(method({ io_method: "io_uring" }), "worker");
  assert.equal(method({ io_method: "sync" }, "io_method = 'io_uring'\n"), "worker");
});

Deno.test("fixedSettings() raises max_prepared_transactions only where it must", () => {
  assert.ok(!fixed(specOf(17)).has("max_prepared_transactions"));
  assert.equal(fixed(specOf(17), 3).get("max_prepared_transactions"), "3");
  assert.ok(
    !fixed(specOf(17), 3, "max_prepared_transactions = '5'\n").has(
      "max_prepared_transactions",
    ),
  );
});

Deno.test("postgresConf() quotes values, and the user's file comes after them", () => {
  const text = postgresConf(specOf(17, { "app.name": "it's" }), true, { last: "a\\b" });
  assert.ok(text.includes("app.name = 'it''s'\ninclude_if_exists = '../postgresql.conf'\n"));
  assert.ok(text.endsWith("last = 'a\\\\b'\n"));
  assert.ok(!text.includes("autovacuum"));
  assert.ok(postgresConf(specOf(17), false).endsWith("autovacuum = off\n"));
});

Deno.test("fixedSettings() lets Postgres start with the logical slots that it inherits", () => {
  const settings = fixed(specOf(17, { max_replication_slots: "4" }), 0, "", 20);
  assert.equal(settings.get("wal_level"), "logical");
  assert.equal(settings.get("max_replication_slots"), "21");
  assert.equal(fixed(specOf(17), 0, "", 1).get("max_replication_slots"), "10");
});
