/**
 * When timelines are compacted: a look at each once every compaction_period, when new delta layers
 * are worth it or many have come together, and at once when somebody asks.
 *
 * One pass at a time for the whole pageserver, in a worker that ends with it, so that at rest there
 * is none. A pass that nobody waits for works half of the time, a fifth of it while the pageserver
 * is busy with reads or WAL. After one that failed the next waits longer, up to an hour; after a
 * restart everything is looked at once more, so what a stopped pass has left is found again. Delta
 * layers that could not be rewritten wait in the same way, and image layers are made meanwhile.
 */
import { messageOf, Unavailable } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { compactionMetrics } from "../metrics.ts";
import type { TenantManager } from "../repository/tenant_manager.ts";
import type { Timeline } from "../repository/timeline.ts";
import { isWholeOnDisk } from "../repository/timeline_snapshot.ts";
import { JobPace, runCompaction } from "./compaction_job.ts";
import type { CompactionPassResult, RewriteResult } from "./compaction_pass.ts";
import { stackedLayers } from "./delta_plan.ts";
import { isWorthALook } from "./image_plan.ts";
import { LoadMeter } from "./load_meter.ts";

const log = logger("pageserver", "compaction");

const FAILURE_PAUSE_MS_MAX = 3_600_000;

function both(a: RewriteResult, b: RewriteResult): RewriteResult {
  return {
    replaced: a.replaced + b.replaced,
    layers: a.layers + b.layers,
    bytes: a.bytes + b.bytes,
    failure: b.failure,
  };
}

/** What is kept of a timeline while it is open. */
interface Looked {
  /** Delta layers up to here were looked at. */
  after: Lsn;
  /** When the next look is due. */
  nextMs: number;
  failures: number;
  /** Delta layers are not rewritten before; and how often in a row that has failed. */
  rewriteMs: number;
  rewriteFailures: number;
}

interface CompactorOptions {
  readonly manager: TenantManager;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** Compacts all timelines. */
export class Compactor {
  readonly #options: CompactorOptions;
  readonly #looked = new WeakMap<Timeline, Looked>();
  /** The end of the last pass that was asked for. */
  #queue: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #pace: JobPace | undefined;
  #isAwaited = false;
  #number = 0;
  readonly #load = new LoadMeter();

  constructor(options: CompactorOptions) {
    this.#options = options;
  }

  /** To be called about once a second: begins a pass if one is due and none is running. */
  tick(): void {
    this.#measureLoad();
    if (this.#pace !== undefined && !this.#isAwaited) this.#pace.rest = this.#load.rest;
    if (this.#waiting > 0) return;
    const timeline = this.#due();
    if (timeline === undefined) return;
    this.#inTurn(() => this.#pass(timeline, false, false)).catch(() => {}); // #pass has told
  }

  /**
   * Compacts what is due of a timeline, of what is on disk of it, at full speed; its ancestors are
   * flushed if need be. `force`: images of every page with a chain of records. Throws Unavailable.
   */
  compact(timeline: Timeline, force: boolean): Promise<CompactionPassResult> {
    this.#hurry(); // the pass before it
    return this.#inTurn(async () => {
      this.#lookedAt(timeline).rewriteMs = -Infinity;
      let result = await this.#pass(timeline, true, force);
      while (result.deltas.replaced > 0 && this.#isStacked(timeline)) {
        const { deltas } = await this.#pass(timeline, true, false);
        result = { images: result.images, deltas: both(result.deltas, deltas) };
        if (deltas.replaced === 0) break;
      }
      return result;
    });
  }

  /** Resolves when nothing is being made any more. */
  async idle(): Promise<void> {
    while (this.#waiting > 0) await this.#queue;
  }

  /** When a timeline is looked at again without being asked. */
  nextLookMs(timeline: Timeline): number {
    return this.#lookedAt(timeline).nextMs;
  }

  #hurry(): void {
    this.#isAwaited = true;
    if (this.#pace !== undefined) this.#pace.rest = 0;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const done = this.#queue.then(work).finally(() => this.#waiting--);
    this.#queue = done.catch(() => {});
    return done;
  }

  /** A timeline that a look is due at. */
  #due(): Timeline | undefined {
    const nowMs = this.#options.now();
    for (const { tenant } of this.#options.manager.list()) {
      for (const timeline of tenant?.timelines.values() ?? []) {
        const { compactionPeriodMs, imageCreationThreshold } = timeline.settings;
        if (compactionPeriodMs === 0 || timeline.state !== "Active") continue;
        const looked = this.#lookedAt(timeline);
        if (nowMs < looked.nextMs || !isWholeOnDisk(timeline)) continue;
        const { layers } = timeline.layers.finished;
        if (isWorthALook(layers, looked.after, imageCreationThreshold)) return timeline;
        if (nowMs >= looked.rewriteMs && this.#isStacked(timeline)) return timeline;
      }
    }
    return undefined;
  }

  #isStacked({ layers, settings }: Timeline): boolean {
    return stackedLayers(layers.finished.layers, settings.compactionThreshold).length > 0;
  }

  #lookedAt(timeline: Timeline): Looked {
    let looked = this.#looked.get(timeline);
    if (looked === undefined) {
      const nextMs = this.#options.now() + timeline.settings.compactionPeriodMs;
      looked = {
        after: INVALID_LSN,
        nextMs,
        failures: 0,
        rewriteMs: -Infinity,
        rewriteFailures: 0,
      };
      this.#looked.set(timeline, looked);
    }
    return looked;
  }

  async #pass(
    timeline: Timeline,
    isAwaited: boolean,
    force: boolean,
  ): Promise<CompactionPassResult> {
    const looked = this.#lookedAt(timeline);
    const startMs = this.#options.now();
    const { compactionPeriodMs } = timeline.settings;
    looked.nextMs = startMs + compactionPeriodMs;
    try {
      const result = await this.#run(timeline, looked, isAwaited, force);
      looked.failures = 0;
      this.#noteRewrite(timeline, looked, result.deltas);
      this.#report(timeline, result, this.#options.now() - startMs);
      return result;
    } catch (thrown) {
      if (timeline.state === "Stopping") throw thrown;
      looked.nextMs = this.#afterFailures(timeline, ++looked.failures);
      log.error("timeline {id} is not compacted for now: {why}", {
        id: timeline.timelineId,
        why: messageOf(thrown),
      });
      throw thrown;
    }
  }

  #afterFailures({ settings }: Timeline, failures: number): number {
    compactionMetrics.failures.inc();
    const pauseMs = Math.min(settings.compactionPeriodMs * 2 ** failures, FAILURE_PAUSE_MS_MAX);
    return this.#options.now() + pauseMs;
  }

  #noteRewrite(timeline: Timeline, looked: Looked, { replaced, failure }: RewriteResult): void {
    if (replaced > 0) looked.rewriteFailures = 0;
    if (failure === undefined) return;
    looked.rewriteMs = this.#afterFailures(timeline, ++looked.rewriteFailures);
    log.error("delta layers of timeline {id} are not rewritten for now: {why}", {
      id: timeline.timelineId,
      why: failure,
    });
  }

  async #run(
    timeline: Timeline,
    looked: Looked,
    isAwaited: boolean,
    force: boolean,
  ): Promise<CompactionPassResult> {
    for (let at = timeline.ancestor; at && isAwaited; at = at.ancestor) {
      if (!isWholeOnDisk(timeline)) await at.flush();
    }
    if (!isWholeOnDisk(timeline)) {
      throw new Unavailable(
        `Cannot compact timeline ${timeline.timelineId}: ` +
          "not all of its ancestor's WAL is on disk yet",
      );
    }
    const snapshot = timeline.snapshot();
    const { imageCreationThreshold, compactionThreshold, compactionTargetBytes } =
      timeline.settings;
    const pace = new JobPace();
    pace.rest = isAwaited ? 0 : this.#load.rest;
    this.#pace = pace;
    this.#isAwaited = isAwaited;
    try {
      const result = await runCompaction(timeline, {
        snapshot,
        number: this.#number++,
        after: looked.after,
        imageCreationThreshold,
        compactionThreshold,
        targetBytes: compactionTargetBytes,
        force,
        mayRewrite: this.#options.now() >= looked.rewriteMs,
      }, pace);
      looked.after = snapshot.diskConsistentLsn;
      return result;
    } finally {
      this.#pace = undefined;
    }
  }

  #report(timeline: Timeline, { images, deltas }: CompactionPassResult, tookMs: number): void {
    compactionMetrics.passes.observe(tookMs / 1000);
    compactionMetrics.layers.inc(images.layers);
    compactionMetrics.pages.inc(images.pages);
    compactionMetrics.bytes.inc(images.bytes);
    compactionMetrics.pageFailures.inc(images.failedPages);
    compactionMetrics.replacedDeltas.inc(deltas.replaced);
    compactionMetrics.rewrittenBytes.inc(deltas.bytes);
    const id = timeline.timelineId;
    const { layers, pages, bytes, failedPages, firstFailure } = images;
    const seconds = (tookMs / 1000).toFixed(1);
    if (pages > 0) {
      log.info(
        "timeline {id}: {layers} image layers of {pages} pages, {bytes} bytes, {seconds} s",
        { id, layers, pages, bytes, seconds },
      );
    }
    if (deltas.replaced > 0) {
      log.info(
        "timeline {id}: {replaced} delta layers rewritten as {layers} in key order, " +
          "{bytes} bytes, {seconds} s",
        { id, ...deltas, seconds },
      );
    }
    if (failedPages > 0) {
      log.error("timeline {id}: {failedPages} pages got no image, for example: {why}", {
        id,
        failedPages,
        why: firstFailure ?? "",
      });
    }
  }

  /** Looks at what others had to do since the last tick. */
  #measureLoad(): void {
    const { manager, now } = this.#options;
    const { cacheHits, cacheMisses } = manager.stats();
    let walBytes = 0;
    for (const { tenant } of manager.list()) {
      for (const timeline of tenant?.timelines.values() ?? []) walBytes += timeline.lastRecordLsn;
    }
    this.#load.look({ reads: cacheHits + cacheMisses, walBytes }, now());
  }
}
