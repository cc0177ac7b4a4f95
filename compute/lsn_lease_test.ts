import assert from "node:assert/strict";
import { servePg } from "../libs/pgwire/server.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import { EndpointDirectory } from "./endpoint_directory.ts";
import type { HostServices } from "./endpoint_run.ts";
import { renewAfterMs } from "./lsn_lease.ts";
import { ReadOnlyRun } from "./read_only_run.ts";

Deno.test("a lease is renewed in time, whatever the clocks show", () => {
  const now = 1_800_000_000_000;
  const minutes = 60_000;
  assert.equal(renewAfterMs(now + 9 * minutes, now), 3 * minutes);
  // Ours has jumped back by a day, or is behind the pageserver's: ten minutes are still ten minutes
  assert.equal(renewAfterMs(now + 10 * minutes, now - 24 * 60 * minutes), 200_000);
  // Ours is ahead
  assert.equal(renewAfterMs(now, now + 24 * 60 * minutes), 5000);
});

/** A lease that goes on is a timer that is left: the test then fails. */
const LEAKS = { sanitizeOps: true, sanitizeResources: true };

Deno.test("a lease that comes when its run has ended is not renewed", LEAKS, async () => {
  const asked = Promise.withResolvers<void>();
  const granted = Promise.withResolvers<void>();
  const server = servePg({
    hostname: "127.0.0.1",
    port: 0,
    onConnection: async (session) => {
      await session.nextQuery();
      asked.resolve();
      await granted.promise;
      const validUntil = String(Date.now() + 600_000);
      await session.sendRows([{ name: "valid_until", typeOid: 25 }], [[validUntil]], "SELECT 1");
    },
  });
  const root = Deno.makeTempDirSync({ prefix: "compute_test_" });
  try {
    const directory = new EndpointDirectory(`${root}/ep`);
    directory.create();
    const run = new ReadOnlyRun({
      services: {} as HostServices,
      spec: {
        endpoint_id: "ep",
        tenant_id: newTenantId(),
        timeline_id: newTimelineId(),
        mode: "Replica",
        pg_version: 17,
        pg_port: 5555,
        pg_bin_dir: "/pg/bin",
        pageserver: { host: "127.0.0.1", port: server.port },
        safekeepers: [],
      },
      directory,
      standbyName: "neon_1",
      onFailure: () => {},
    });
    const leasing = run.startAt(parseLsn("0/1500000"));
    await asked.promise;
    await run.abandon();
    granted.resolve();
    await leasing;
  } finally {
    await server.close();
    Deno.removeSync(root, { recursive: true });
  }
});
