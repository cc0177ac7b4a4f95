/**
 * What the repository's tests share: a manager on its own temporary directory, and short ways to
 * put.
 */
import { setImmediate } from "node:timers";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { type Lsn, toLsn } from "../../libs/utils/lsn.ts";
import type { ObjectId } from "./key_interner.ts";
import type { Tenant } from "./tenant.ts";
import type { TenantConfig } from "./tenant_config.ts";
import { TenantManager } from "./tenant_manager.ts";
import type { Timeline } from "./timeline.ts";

/** A clock that only moves when told to. */
class TestClock {
  nowMs = 0;
}

/** Lets the event loop run. */
export function pause(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Opens the tenants below `directory`, with a page cache of a few pages, so that it evicts. */
export function openManager(directory: string, clock = new TestClock()): TenantManager {
  return TenantManager.open(directory, { now: () => clock.nowMs, pause, cacheBytes: 16 * 8192 });
}

/** Where imported timelines begin. */
export const START_LSN = toLsn(0x1500000);
/** The record before. */
export const START_PREV_LSN = toLsn(0x14fff90);

/** Text as bytes. */
export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes as text; undefined stays. */
export function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

/** Imports a root timeline of one page, relation 1663/5/1 block 0, which reads "root". */
export async function importRoot(
  tenant: Tenant,
  manager: TenantManager,
  id = newTimelineId(),
): Promise<Timeline> {
  const importer = tenant.importTimeline(id, 17);
  importer.putImage(manager.interner.relation(1663, 5, 1, 0), 0, bytesOf("root"), 0, 4);
  return await importer.finish(START_LSN, START_PREV_LSN);
}

/** Runs `work` with a manager, an attached tenant and a root timeline; cleans up. */
export async function withTimeline(
  work: (all: {
    directory: string;
    clock: TestClock;
    manager: TenantManager;
    tenant: Tenant;
    timeline: Timeline;
  }) => Promise<void>,
  config: TenantConfig = {},
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const clock = new TestClock();
  const manager = openManager(directory, clock);
  try {
    const tenant = await manager.attach(newTenantId(), 1, config);
    const timeline = await importRoot(tenant, manager);
    await work({ directory, clock, manager, tenant, timeline });
  } finally {
    await manager.shutdown();
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Puts a record of its own blob. */
export function putRecord(
  timeline: Timeline,
  object: ObjectId,
  block: number,
  lsn: Lsn,
  text: string,
  willInit: boolean,
): void {
  const bytes = bytesOf(text);
  const blob = timeline.beginBlob(bytes, 0, bytes.length);
  timeline.putRecord(object, block, lsn, blob, willInit);
}

/**
 * Copies a directory as a crash would leave it: in one turn of the event loop, so no step of ours
 * comes in between. A rename that is under way in another thread may take a temporary file away.
 */
export function copyDirectory(from: string, to: string): void {
  for (const entry of Deno.readDirSync(from)) {
    const [source, target] = [`${from}/${entry.name}`, `${to}/${entry.name}`];
    if (entry.isDirectory) {
      Deno.mkdirSync(target);
      copyDirectory(source, target);
      continue;
    }
    ifThere(() => Deno.copyFileSync(source, target));
  }
}
