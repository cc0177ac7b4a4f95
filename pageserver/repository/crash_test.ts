/**
 * kill -9 at random moments, again and again on one directory; then everything promised is there.
 */
import assert from "node:assert/strict";
import {
  newTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { checkContents, lsnOf, putNumbered, recordAt } from "./numbered_fixture.ts";
import { importRoot, openManager } from "./repository_fixture.ts";

const ROUNDS = 12;

/** What the child said was durable. */
interface Promised {
  flushed: number;
  branches: Map<string, number>;
  /** Deletions that were begun: these branches may be there or not. */
  deleting: Set<string>;
  deleted: Set<string>;
}

function note(promised: Promised, line: string): void {
  const [word, first, second] = line.split(" ");
  if (word === "flushed") promised.flushed = Number(first);
  if (word === "branched") promised.branches.set(first!, Number(second));
  if (word === "deleting") promised.deleting.add(first!);
  if (word === "deleted") promised.deleted.add(first!);
}

/** Runs the child until it has loaded and then `lifeMs` more, kills it, and notes what it said. */
async function runAndKill(args: string[], lifeMs: number, promised: Promised): Promise<void> {
  const script = `${import.meta.dirname}/crash_child.ts`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, ...args],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let killer: ReturnType<typeof setTimeout> | undefined;
  let rest = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    killer ??= setTimeout(() => child.kill("SIGKILL"), lifeMs);
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    for (const line of lines) note(promised, line);
  }
  clearTimeout(killer);
  assert.equal((await child.status).signal, "SIGKILL", "the child only ends by our signal");
}

async function check(
  directory: string,
  tenantId: TenantId,
  id: TimelineId,
  generation: number,
  promised: Promised,
): Promise<void> {
  const manager = openManager(directory);
  const tenant = await manager.attach(tenantId, generation);
  const timeline = tenant.timeline(id);
  assert.equal(tenant.broken.size, 0);
  assert.ok(timeline.diskConsistentLsn >= promised.flushed, "what was flushed is there");
  const last = recordAt(timeline.lastRecordLsn);
  if (last > 0) assert.equal(timeline.prevRecordLsn, lsnOf(last - 1));
  checkContents(timeline);
  // What the layers do not hold comes again.
  for (let n = last + 1; n <= last + 20; n++) putNumbered(timeline, n);
  timeline.advance(lsnOf(last + 20), lsnOf(last + 19));
  checkContents(timeline);
  for (const [branch, startLsn] of promised.branches) {
    const found = tenant.timelines.get(parseTimelineId(branch));
    if (promised.deleted.has(branch)) assert.equal(found, undefined, "a deleted branch stays away");
    else if (!promised.deleting.has(branch)) assert.equal(found?.startLsn, startLsn);
  }
  const path = `${directory}/tenants/${tenantId}/timelines/${id}`;
  const names = [...Deno.readDirSync(path)].map((entry) => entry.name).filter((name) =>
    !name.startsWith("open-")
  );
  const listed = timeline.layerInfos().map((layer) => layer.fileName).filter((name) => name !== "");
  assert.deepEqual(names.sort(), [...listed, "index_part"].sort());
  await timeline.close(); // without a flush
  await manager.shutdown();
}

Deno.test("a process killed at any moment leaves what it promised, and nothing else", async () => {
  const directory = Deno.makeTempDirSync();
  const tenantId = newTenantId();
  const manager = openManager(directory);
  const tenant = await manager.attach(tenantId, 1, { checkpoint_distance: 900 });
  const { timelineId } = await importRoot(tenant, manager);
  await manager.shutdown();
  const promised: Promised = {
    flushed: 0,
    branches: new Map(),
    deleting: new Set(),
    deleted: new Set(),
  };
  for (let round = 0; round < ROUNDS; round++) {
    const generation = 2 + round;
    const lifeMs = Math.random() * 150;
    await runAndKill([directory, tenantId, timelineId, `${generation}`], lifeMs, promised);
    await check(directory, tenantId, timelineId, generation, promised);
  }
  assert.ok(promised.flushed > 0 && promised.branches.size > 0, "the child got somewhere");
  Deno.removeSync(directory, { recursive: true });
});
