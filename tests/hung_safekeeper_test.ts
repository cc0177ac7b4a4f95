/**
 * A safekeeper that hangs (SIGSTOP: its sockets are open and nobody answers) holds up nobody: not
 * the commits, not an endpoint that starts, not the pageserver, whichever of the three it is. When
 * it goes on, it gets what it missed.
 */
import assert from "node:assert/strict";
import { SafekeeperClient } from "../safekeeper/client.ts";
import { testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { until } from "./support/waiting.ts";

const WRITERS = 4;
const COMMITS = 200;
/** They take a fraction of a second; a wait for the one that hangs would be at least its limit. */
const COMMITS_MS_MAX = 8000;

testWithNeon("a safekeeper that hangs holds up nobody", { safekeepers: 3 }, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  await createLedger(neon.connect(main));
  let writers = new Writers(main.port, WRITERS);
  writers.start();
  const hung = async (id: number, work: () => Promise<void>) => {
    neon.signalRole(`safekeeper ${id}`, "SIGSTOP");
    try {
      const begun = performance.now();
      await writers.more(COMMITS);
      const tookMs = performance.now() - begun;
      assert.ok(tookMs < COMMITS_MS_MAX, `${COMMITS} commits took ${tookMs} ms without ${id}`);
      await work();
    } finally {
      neon.signalRole(`safekeeper ${id}`, "SIGCONT");
    }
  };
  await writers.more(COMMITS);
  for (const id of [1, 2]) {
    await hung(id, async () => {
      // A branch waits until the pageserver has what is committed now
      const least = writers.acknowledged;
      await neon.run("timeline", "branch", "--branch-name", `without_${id}`);
      const branch = neon.connect(await neon.local.startEndpoint(`without_${id}`));
      const [row] = await branch`select count(*)::int as n from ledger`;
      assert.ok(row!["n"] >= least, `${row!["n"]} of ${least} rows are on the branch`);
    });
  }
  await hung(3, async () => {
    await writers.stop();
    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    const again = await neon.local.startEndpoint("main");
    await writers.check(neon.connect(again));
    writers = new Writers(again.port, WRITERS);
  });
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  const ends = () =>
    Promise.all(
      neon.local.environment().config.safekeepers.map(async ({ http_port }) => {
        const client = new SafekeeperClient(`127.0.0.1:${http_port}`);
        const { tenantId, timelineId } = neon.tenant;
        return (await client.timelineStatus(tenantId, timelineId)).flush_lsn;
      }),
    );
  await until("all three have the same WAL", async () => new Set(await ends()).size === 1);
});
