/**
 * The worker that compacts a timeline: one pass, then it is ended by who started it.
 *
 * It gets a CompactionWorkerOrder and answers with CompactionWorkerMessages. It may read the
 * directories of the timeline and its ancestors and write in the timeline's, nothing else
 * (compaction_job.ts says so when it starts the worker). How fast it goes is in a few shared
 * numbers, so that it can be slowed down or stopped while it works.
 */
import { messageOf } from "../../libs/utils/errors.ts";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { Resources } from "../repository/resources.ts";
import {
  type CompactionWorkerMessage,
  type CompactionWorkerOrder,
  Pace,
} from "./compaction_messages.ts";
import { type CompactionPassResult, compactTimeline } from "./compaction_pass.ts";
import { rebuildWith } from "./image_pass.ts";

/**
 * Bytes of the worker's caches: with its isolate and buffers it stays below 90 MB while it makes
 * images, and below 130 MB while it rewrites delta layers (delta_pass.ts).
 */
const CACHE_BYTES = 16 * 1024 * 1024;
const DIRECTORY_BYTES = 16 * 1024 * 1024;
/** Work between looks at the pace. */
const SLICE_MS = 10;
/** The longest rest, so that it can be stopped: after a sync, which is no slice. */
const REST_MS_MAX = 200;

async function work({ order, pace }: CompactionWorkerOrder): Promise<CompactionPassResult> {
  const now = () => performance.now();
  let sliceStartMs = now();
  const isStopped = () => Atomics.load(pace, Pace.stop) === 1;
  const pause = async () => {
    if (isStopped()) throw new Error("it was stopped");
    const workedMs = now() - sliceStartMs;
    if (workedMs < SLICE_MS) return;
    const restMs = Math.min(REST_MS_MAX, workedMs * Atomics.load(pace, Pace.rest));
    if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
    sliceStartMs = now();
  };
  const resources = new Resources({
    now,
    pause,
    cacheBytes: CACHE_BYTES,
    directoryBytes: DIRECTORY_BYTES,
  });
  return await compactTimeline(order, {
    resources,
    rebuild: rebuildWith(pgVersion(order.snapshot.pgVersion)),
    pause,
    isStopped,
    onLayers: (layers) => answer({ kind: "layers", layers }),
  });
}

function answer(message: CompactionWorkerMessage): void {
  (self as unknown as { postMessage: (message: CompactionWorkerMessage) => void }).postMessage(
    message,
  );
}

addEventListener("message", (event) => {
  work((event as MessageEvent<CompactionWorkerOrder>).data).then(
    (result) => answer({ kind: "done", result }),
    (thrown) => answer({ kind: "failed", why: messageOf(thrown) }),
  );
});
