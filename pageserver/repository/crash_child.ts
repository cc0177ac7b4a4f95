/**
 * The process that crash_test.ts kills: it ingests made-up WAL for ever, with flushes, images,
 * rewritten layers, branches and deletions, and prints a line for each thing that is durable.
 * The WAL is that of numbered_fixture.ts.
 *
 *   crash_child.ts <directory> <tenant> <timeline> <generation>
 */
import {
  newTimelineId,
  parseTenantId,
  parseTimelineId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { makeTextImages, rewriteSome } from "../compaction/image_fixture.ts";
import { lsnOf, putNumbered, recordAt } from "./numbered_fixture.ts";
import { openManager, pause } from "./repository_fixture.ts";

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
    if (n % 98 === 0) await makeTextImages(timeline);
    if (n % 147 === 0) await rewriteSome(timeline, { targetBytes: 700 });
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
