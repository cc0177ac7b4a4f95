/**
 * Making a timeline's image layers in a worker of their own, and taking over what it has written:
 * the pages are rebuilt beside the event loop that serves reads, which has to give each finished
 * file its name and list it (Timeline.addImageLayer).
 *
 * The worker lives for one pass. It may read the directories of the timeline and its ancestors,
 * write in the timeline's, and load the CRC-32C add-on.
 */
import { crc32AddonPath } from "../../libs/utils/crc32c.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Timeline } from "../repository/timeline.ts";
import type { TimelineSnapshot } from "../repository/timeline_snapshot.ts";
import { type ImageWorkerMessage, type ImageWorkerOrder, Pace } from "./image_messages.ts";
import type { ImagePassOrder, ImagePassResult } from "./image_pass.ts";

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
  return new Worker(import.meta.resolve("./image_worker.ts"), {
    type: "module",
    name: `images of ${snapshot.timelineId}`,
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
export function runImageJob(
  timeline: Timeline,
  order: ImagePassOrder,
  pace: JobPace,
): Promise<ImagePassResult> {
  return timeline.whileOpen(async (closing) => {
    const worker = startWorker(order.snapshot);
    const doesNotStop = Promise.withResolvers<never>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = () => {
      pace.stop();
      const error = new Unavailable("Cannot stop making image layers: the worker does not answer");
      timer = setTimeout(() => doesNotStop.reject(error), STOP_MS_MAX);
    };
    closing.addEventListener("abort", stop);
    try {
      const following = follow(worker, timeline, { order, pace: pace.shared });
      return await Promise.race([following, doesNotStop.promise]);
    } finally {
      worker.terminate();
      clearTimeout(timer);
      closing.removeEventListener("abort", stop);
    }
  });
}

async function follow(
  worker: Worker,
  timeline: Timeline,
  order: ImageWorkerOrder,
): Promise<ImagePassResult> {
  const unavailable = (why: string) =>
    new Unavailable(`Cannot make image layers of timeline ${timeline.timelineId}: ${why}`);
  let taken: Promise<void> = Promise.resolve();
  const ended = new Promise<ImagePassResult>((resolve, reject) => {
    worker.onerror = (event) => {
      event.preventDefault();
      reject(unavailable(event.message));
    };
    worker.onmessage = ({ data }: MessageEvent<ImageWorkerMessage>) => {
      if (data.kind === "done") resolve(data.result);
      else if (data.kind === "failed") reject(unavailable(data.why));
      else {
        taken = taken.then(() => timeline.addImageLayer(data.layer, data.temporaryPath));
        taken.catch((thrown) => {
          ifThere(() => Deno.removeSync(data.temporaryPath));
          reject(thrown);
        });
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
