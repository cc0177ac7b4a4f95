/**
 * All timelines of one safekeeper: `<directory>/<tenant>/<timeline>/`. They are opened at the
 * start, made only on request of the control plane (never by a proposer's greeting), and a
 * directory without a control file is what an unfinished creation or deletion left: no timeline.
 */
import { makeDirectory } from "../libs/utils/durable.ts";
import { Conflict, messageOf, NotFound } from "../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { timelineCount } from "./metrics.ts";
import { Timeline } from "./timeline.ts";
import { type NewTimeline, newTimelineState, type TimelineState } from "./timeline_state.ts";

const log = logger("safekeeper", "timelines");

/** Control files are brought up to date this often, so that a restart has little WAL to decode. */
const CHECKPOINT_INTERVAL_MS = 30_000;

/** See the head of this file. */
export class Timelines {
  readonly #directory: string;
  readonly #nodeId: number;
  readonly #timelines = new Map<string, Timeline>();
  /** Called when a timeline appears or its commit LSN moves. */
  onCommit: (timeline: Timeline) => void = () => {};
  #lastCheckpointMs = 0;

  /**
   * Opens what is in `directory`. Throws Corrupt naming the file if a timeline cannot be served.
   */
  constructor(directory: string, nodeId: number) {
    this.#directory = directory;
    this.#nodeId = nodeId;
    for (const [tenantId, timelineId, path] of timelineDirectories(directory)) {
      try {
        this.#add(Timeline.open(path, nodeId, tenantId, timelineId));
      } catch (thrown) {
        if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
        log.warning("ignoring {path}: it has no control file", { path });
      }
    }
  }

  #add(timeline: Timeline): Timeline {
    timeline.listeners.add({ onCommit: () => this.onCommit(timeline) });
    this.#timelines.set(`${timeline.tenantId}/${timeline.timelineId}`, timeline);
    timelineCount.set(this.#timelines.size);
    this.onCommit(timeline);
    return timeline;
  }

  /** All timelines. */
  all(): IterableIterator<Timeline> {
    return this.#timelines.values();
  }

  /** The timeline, or undefined. */
  find(tenantId: TenantId, timelineId: TimelineId): Timeline | undefined {
    return this.#timelines.get(`${tenantId}/${timelineId}`);
  }

  /** The timeline. Throws NotFound. */
  get(tenantId: TenantId, timelineId: TimelineId): Timeline {
    const found = this.find(tenantId, timelineId);
    if (found !== undefined) return found;
    throw new NotFound(`Cannot find timeline ${tenantId}/${timelineId} on this safekeeper`);
  }

  /**
   * Makes a timeline, or returns the one that is there if it was made with the same arguments.
   * Throws Conflict if it was not, BadRequest for arguments that make no timeline.
   */
  create(args: NewTimeline): Timeline {
    const state = newTimelineState(args);
    const existing = this.find(args.tenantId, args.timelineId);
    if (existing !== undefined) {
      checkSame(existing.acceptor.state, state);
      return existing;
    }
    const tenantDirectory = `${this.#directory}/${args.tenantId}`;
    makeDirectory(tenantDirectory);
    const path = `${tenantDirectory}/${args.timelineId}`;
    return this.#add(Timeline.create(path, this.#nodeId, state));
  }

  /** Removes a timeline; returns whether there was one. */
  delete(tenantId: TenantId, timelineId: TimelineId): boolean {
    const timeline = this.find(tenantId, timelineId);
    if (timeline === undefined) return false;
    this.#timelines.delete(`${tenantId}/${timelineId}`);
    timelineCount.set(this.#timelines.size);
    timeline.delete();
    return true;
  }

  /** Removes all timelines of a tenant; returns their ids. */
  deleteTenant(tenantId: TenantId): TimelineId[] {
    const mine = [...this.all()].filter((timeline) => timeline.tenantId === tenantId);
    for (const timeline of mine) this.delete(tenantId, timeline.timelineId);
    return mine.map((timeline) => timeline.timelineId);
  }

  /** Regular housekeeping: removes old WAL, and now and then updates control files. */
  maintain(nowMs: number): void {
    const checkpoint = nowMs - this.#lastCheckpointMs >= CHECKPOINT_INTERVAL_MS;
    if (checkpoint) this.#lastCheckpointMs = nowMs;
    for (const timeline of this.all()) {
      try {
        timeline.removeOldWal();
        if (checkpoint) timeline.checkpoint();
      } catch (thrown) {
        const { timelineId } = timeline;
        log.error("housekeeping of {timelineId} failed: {message}", {
          timelineId,
          message: messageOf(thrown),
        });
      }
    }
  }

  /** Makes everything durable and closes it. */
  close(): void {
    for (const timeline of this.all()) timeline.close();
    this.#timelines.clear();
  }
}

function checkSame(existing: TimelineState, wanted: TimelineState): void {
  if (existing.timelineStartLsn === wanted.timelineStartLsn) return;
  throw new Conflict(
    `Cannot create timeline ${wanted.timelineId} at ${formatLsn(wanted.timelineStartLsn)}: it ` +
      `exists and starts at ${formatLsn(existing.timelineStartLsn)}`,
  );
}

function* timelineDirectories(directory: string): Iterable<[TenantId, TimelineId, string]> {
  const isId = (entry: Deno.DirEntry) => entry.isDirectory && /^[0-9a-f]{32}$/.test(entry.name);
  for (const tenant of Deno.readDirSync(directory)) {
    if (!isId(tenant)) continue;
    for (const timeline of Deno.readDirSync(`${directory}/${tenant.name}`)) {
      if (!isId(timeline)) continue;
      const path = `${directory}/${tenant.name}/${timeline.name}`;
      yield [parseTenantId(tenant.name), parseTimelineId(timeline.name), path];
    }
  }
}
