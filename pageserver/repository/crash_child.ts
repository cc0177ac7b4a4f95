/**
 * The process that crash_test.ts kills: it ingests made-up WAL for ever, with flushes, branches and
 * deletions, and prints a line for each thing that is durable.
 *
 * Record n ends at START_LSN + 16 n, changes block n % 13, and rebuilds it every 29th time; every
 * fifth also writes the value of record n. So anyone can say what has to be there at any LSN.
 *
 *   crash_child.ts <directory> <tenant> <timeline> <generation>
 */
import {
  newTimelineId,
  parseTenantId,
  parseTimelineId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { type Key, relationSizeKey } from "./key.ts";
import { bytesOf, openManager, pause, putRecord, START_LSN } from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

const BLOCKS = 13;

/** The end of record `n`. */
export function lsnOf(n: number): Lsn {
  return addLsn(START_LSN, 16 * n);
}

/** The number of the last record at or below `lsn`. */
export function recordAt(lsn: Lsn): number {
  return Math.floor((lsn - START_LSN) / 16);
}

/** The key whose value every fifth record replaces. */
export const VALUE_KEY: Key = relationSizeKey(1663, 5, 77, 0);

/** The records that make up `block` at record `last`, oldest first. */
export function blockAt(block: number, last: number): string[] {
  const records: string[] = [];
  for (let n = last; n > 0; n--) {
    if (n % BLOCKS !== block) continue;
    records.unshift(`r${n}`);
    if (isInit(n)) break;
  }
  return records;
}

function isInit(n: number): boolean {
  return n <= BLOCKS || n % 29 === 0;
}

/** Puts record `n`. */
export function putNumbered(timeline: Timeline, n: number): void {
  const relation = timeline.interner.relation(1663, 5, 77, 0);
  putRecord(timeline, relation, n % BLOCKS, lsnOf(n), `r${n}`, isInit(n));
  if (n % 5 === 0) timeline.putValue(VALUE_KEY, lsnOf(n), bytesOf(`${n}`));
}

async function main(): Promise<void> {
  const [directory, tenantText, timelineText, generation] = Deno.args;
  const manager = openManager(directory!);
  const tenant = await manager.attach(parseTenantId(tenantText!), Number(generation));
  const timeline = tenant.timeline(parseTimelineId(timelineText!));
  const branches: TimelineId[] = [];
  console.log(`loaded ${timeline.lastRecordLsn}`);
  for (let n = recordAt(timeline.lastRecordLsn) + 1;; n++) {
    putNumbered(timeline, n);
    if (n % 7 !== 0) continue;
    timeline.advance(lsnOf(n), lsnOf(n - 1));
    await timeline.waitForRoom();
    await pause();
    if (n % 49 === 0) console.log(`flushed ${await timeline.flush()}`);
    if (n % 63 === 0) {
      const id = newTimelineId();
      const branch = await tenant.createBranch(id, timeline.timelineId);
      console.log(`branched ${id} ${branch.startLsn}`);
      branches.push(id);
    }
    if (branches.length > 3) {
      const id = branches.shift()!;
      console.log(`deleting ${id}`);
      await tenant.deleteTimeline(id);
      console.log(`deleted ${id}`);
    }
  }
}

if (import.meta.main) await main();
