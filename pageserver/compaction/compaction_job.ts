/**
 * Compacting a timeline in a worker of its own, and taking over what it has written: pages are
 * rebuilt and layers rewritten beside the event loop that serves reads, which has to give each
 * finished file its name and list it (Timeline.addLayers).
 *
 * The worker lives for one pass. It may read the directories of the timeline and its ancestors,
 * write in the timeline's, and load the CRC-32C add-on.
 */
import { crc32AddonPath } from "../../libs/utils/crc32c.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Timeline } from "../repository/timeline.ts";
import type { TimelineSnapshot } from "../repository/timeline_snapshot.ts";
import {
  type CompactionWorkerMessage,
  type CompactionWorkerOrder,
  Pace,
  type WrittenLayers,
} from "./compaction_messages.ts";
import type { CompactionOrder, CompactionPassResult } from "./compaction_pass.ts";

/** How long a worker that is to stop may take: it may be in the middle of a sync. */
const STOP_MS_MAX = 10_000;

/** How fast a job goes. */
export class JobPace {
  readonly shared = new Int32Array(new SharedArrayBuffer(8));

  /** Rest so many milliseconds for each millisecond of work. */
  set rest(ratio: number) {
    Atomics.store(this.shared, Pace.rest, ratio);
  }

  /** Have it give up. */
  stop(): void {
    Atomics.store(this.shared, Pace.stop, 1);
  }
}

function directoriesOf(snapshot: TimelineSnapshot): string[] {
  const above = snapshot.ancestor === undefined ? [] : directoriesOf(snapshot.ancestor);
  return [snapshot.directory, ...above];
}

function startWorker(snapshot: TimelineSnapshot): Worker {
  const addon = crc32AddonPath();
  return new Worker(import.meta.resolve("./compaction_worker.ts"), {
    type: "module",
    name: `compaction of ${snapshot.timelineId}`,
    deno: {
      permissions: {
        read: directoriesOf(snapshot),
        write: [snapshot.directory],
        ffi: addon === undefined ? false : [addon],
        net: false,
        env: false,
        run: false,
        sys: false,
        import: false,
      },
    },
  });
}

/**
 * One pass in a worker, as `order` says; every layer of it is searched and durable when this
 * resolves. Throws Unavailable if the pass could not go to its end, what was taken over before
 * stays.
 */
export function runCompaction(
  timeline: Timeline,
  order: CompactionOrder,
  pace: JobPace,
): Promise<CompactionPassResult> {
  return timeline.whileOpen(async (closing) => {
    const worker = startWorker(order.snapshot);
    const doesNotStop = Promise.withResolvers<never>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = () => {
      pace.stop();
      if (timer !== undefined) return;
      const error = new Unavailable("Cannot stop a compaction: the worker does not answer");
      timer = setTimeout(() => doesNotStop.reject(error), STOP_MS_MAX);
    };
    closing.addEventListener("abort", stop);
    try {
      const following = follow(worker, timeline, { order, pace: pace.shared }, stop);
      return await Promise.race([following, doesNotStop.promise]);
    } finally {
      worker.terminate();
      clearTimeout(timer);
      closing.removeEventListener("abort", stop);
    }
  });
}

/** Takes layers over behind those before, or removes them if that cannot be, or could not before. */
async function takeOver(
  before: Promise<void>,
  timeline: Timeline,
  { written, replaced }: WrittenLayers,
): Promise<void> {
  try {
    await before;
    await timeline.addLayers(written, replaced);
  } catch (thrown) {
    for (const { temporaryPath } of written) ifThere(() => Deno.removeSync(temporaryPath));
    throw thrown;
  }
}

/**
 * Gives the order and takes over what comes, until the worker has ended; `stop` has it end early,
 * and remove what it is writing.
 */
async function follow(
  worker: Worker,
  timeline: Timeline,
  order: CompactionWorkerOrder,
  stop: () => void,
): Promise<CompactionPassResult> {
  const unavailable = (why: string) =>
    new Unavailable(`Cannot compact timeline ${timeline.timelineId}: ${why}`);
  let taken: Promise<void> = Promise.resolve();
  const ended = new Promise<CompactionPassResult>((resolve, reject) => {
    worker.onerror = (event) => {
      event.preventDefault();
      reject(unavailable(event.message));
    };
    worker.onmessage = ({ data }: MessageEvent<CompactionWorkerMessage>) => {
      if (data.kind === "done") resolve(data.result);
      else if (data.kind === "failed") reject(unavailable(data.why));
      else {
        taken = takeOver(taken, timeline, data.layers);
        taken.catch(stop); // thrown below
      }
    };
  });
  worker.postMessage(order);
  try {
    return await ended;
  } finally {
    await taken;
  }
}
