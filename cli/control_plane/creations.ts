/**
 * Creations that are under way: what a command makes in several places (pageserver, safekeepers,
 * our own records) is there as a whole in the end, or not at all.
 *
 *   .neon/creating/<timeline>.json    {"tenant_id": "9ef8...", "timeline_id": "de20...",
 *                                      "with_tenant": true}
 *
 * The file is there before anything is made, and locked by the command that makes it. It is done
 * when the branch has its name, which is one durable step. A file that nobody holds is that of a
 * command that was interrupted: the next creation, or the next start, undoes it.
 */
import { makeDirectory, removeFile, replaceFileInBackground } from "../../libs/utils/durable.ts";
import { Conflict, NotFound } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { join } from "../../libs/utils/paths.ts";
import { retry } from "../../libs/utils/polling.ts";
import { flag, type Shape } from "../../libs/utils/shape.ts";
import type { PageserverClient } from "../../pageserver/client.ts";
import { pageserverClient, safekeeperClient } from "./clients.ts";
import { branchName, loadConfig } from "./config.ts";
import { type Environment, repoPath } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { idShape, parseRecord } from "./shapes.ts";
import { forgetTimeline, listTenantRecords, removeTenantRecord } from "./tenant_records.ts";

/** How long the pageserver may still work on what an interrupted command has asked for. */
const UNDER_WAY = { pauseMs: [20, 20], limitMs: 10_000 } as const;

/** What is being made: a timeline, or a tenant with its first one. */
interface Creation {
  tenant_id: TenantId;
  timeline_id: TimelineId;
  with_tenant: boolean;
}

const CREATION: Shape<Creation> = { tenant_id: idShape, timeline_id: idShape, with_tenant: flag };

function pathOf(env: Environment, timeline: TimelineId): string {
  return repoPath(env, "creating", `${timeline}.json`);
}

/** Opens a file and locks it; undefined if it is not there or somebody holds it. */
function lockedFile(path: string): Deno.FsFile | undefined {
  const file = ifThere(() => Deno.openSync(path, { read: true }));
  if (file === undefined || file.tryLockSync(true)) return file;
  file.close();
  return undefined;
}

/**
 * Runs `make`, which ends with the branch's name in the configuration. Whatever it has made is
 * undone when it throws, and later when this process is interrupted. The caller has called
 * undoInterrupted() before it looked at what there is. `looked` is what it still waits for before
 * anything begins: that the pageserver answers, and what `make` is given.
 */
export async function creating<T, L>(
  env: Environment,
  creation: Creation,
  looked: Promise<L>,
  make: (seen: L) => Promise<T>,
): Promise<T> {
  const path = pathOf(env, creation.timeline_id);
  looked.catch(() => {}); // thrown below
  const file = await withDirectoryLock(env.repoDir, async () => {
    makeDirectory(repoPath(env, "creating"));
    const text = JSON.stringify(creation) + "\n";
    await replaceFileInBackground(path, new TextEncoder().encode(text));
    return lockedFile(path);
  });
  const seen = await looked.catch((thrown) => {
    removeFile(path);
    file?.close();
    throw thrown;
  });
  try {
    const made = await make(seen);
    removeFile(path);
    return made;
  } catch (thrown) {
    await undo(env, creation).then(() => removeFile(path), () => {}); // the failure is to be told
    throw thrown;
  } finally {
    file?.close();
  }
}

/** Undoes what interrupted commands have left; what cannot be undone now stays for the next time. */
export async function undoInterrupted(env: Environment): Promise<void> {
  const directory = repoPath(env, "creating");
  const names = ifThere(() => [...Deno.readDirSync(directory)].map((entry) => entry.name)) ?? [];
  for (const name of names) {
    const path = join(directory, name);
    // Under the lock: a file that is there but not locked yet is not to be seen
    const file = await withDirectoryLock(env.repoDir, () => {
      if (name.endsWith(".json")) return lockedFile(path);
      removeFile(path); // of a command that was interrupted while it wrote: nothing had begun
      return undefined;
    });
    if (file === undefined) continue;
    try {
      await undo(env, parseRecord<Creation>(path, Deno.readTextFileSync(path), CREATION));
      removeFile(path);
    } catch {
      // a daemon is down
    } finally {
      file.close();
    }
  }
}

/** What an interrupted command has asked for may still be under way, and ends soon. */
function deleteTimeline(
  pageserver: PageserverClient,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<void> {
  const isUnderWay = (thrown: unknown) => thrown instanceof Conflict;
  return retry(UNDER_WAY, isUnderWay, () => pageserver.deleteTimeline(tenant, timeline));
}

async function undo(env: Environment, creation: Creation): Promise<void> {
  const { tenant_id: tenant, timeline_id: timeline, with_tenant: withTenant } = creation;
  if (branchName(loadConfig(env.repoDir), tenant, timeline) !== undefined) return; // it was done
  const pageserver = pageserverClient(env);
  const removals = [
    withTenant ? pageserver.deleteTenant(tenant) : deleteTimeline(pageserver, tenant, timeline),
    ...env.config.safekeepers.map(async (config) => {
      const safekeeper = safekeeperClient(env, config);
      if (withTenant) await safekeeper.deleteTenant(tenant);
      else await safekeeper.deleteTimeline(tenant, timeline);
    }),
  ];
  const outcomes = await Promise.allSettled(removals);
  await withDirectoryLock(env.repoDir, () => {
    if (withTenant) removeTenantRecord(env.repoDir, tenant);
    else if (listTenantRecords(env.repoDir).includes(tenant)) {
      forgetTimeline(env.repoDir, tenant, timeline);
    }
  });
  for (const outcome of outcomes) {
    if (outcome.status === "rejected" && !(outcome.reason instanceof NotFound)) {
      throw outcome.reason;
    }
  }
}
