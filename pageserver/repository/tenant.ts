/**
 * A tenant that is attached here: its timelines, how they are created, branched and deleted.
 *
 * Creating is durable before it resolves, and the same call again gives the same timeline. A
 * branch is one index_part that names its ancestor and the branch point. Nothing here is on a hot
 * path.
 */
import { makeDirectory } from "../../libs/utils/durable.ts";
import { BadRequest, Conflict, Corrupt, messageOf, NotFound } from "../../libs/utils/errors.ts";
import { parseTimelineId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { logger } from "../../libs/utils/log.ts";
import { alignLsn, formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { SyncFailed } from "./durable_async.ts";
import { TimelineImporter } from "./importer.ts";
import { type IndexPart, writeIndexPart } from "./index_part.ts";
import type { Resources } from "./resources.ts";
import { type TenantConfig, timelineSettings } from "./tenant_config.ts";
import {
  listDirectories,
  loadTimelineDirectory,
  removeDirectory,
  TIMELINES_NAME,
} from "./tenant_directory.ts";
import { Timeline, type TimelineSettings } from "./timeline.ts";

const log = logger("pageserver", "tenant");

/** What the tenant manager opens a tenant with. */
interface TenantOptions {
  readonly tenantId: TenantId;
  /** `tenants/<tenant>`; there, with its config file. */
  readonly directory: string;
  readonly generation: number;
  readonly config: TenantConfig;
  readonly resources: Resources;
}

/** One tenant, attached here. */
export class Tenant {
  readonly tenantId: TenantId;
  /** Timelines that can be read. */
  readonly timelines: Map<TimelineId, Timeline> = new Map();
  /** Timelines that cannot, and why: their state, or an ancestor's, is harmed. */
  readonly broken: Map<TimelineId, string> = new Map();
  /** Of the broken ones, those that are whole but miss their ancestor, and which. */
  readonly #orphans = new Map<TimelineId, TimelineId>();
  readonly #directory: string;
  readonly #resources: Resources;
  readonly #settings: TimelineSettings;
  /** Imports and branches that are being created, and timelines that are being deleted. */
  readonly #busy = new Set<TimelineId>();
  readonly #creating = new Map<
    TimelineId,
    { ancestorId: TimelineId; created: Promise<Timeline> }
  >();
  #generation: number;
  #config: TenantConfig;

  /** Loads all timelines from disk. */
  constructor(options: TenantOptions) {
    this.tenantId = options.tenantId;
    this.#directory = `${options.directory}/${TIMELINES_NAME}`;
    this.#resources = options.resources;
    this.#generation = options.generation;
    this.#config = options.config;
    this.#settings = timelineSettings(options.config);
    makeDirectory(this.#directory);
    this.#load();
  }

  /** The generation under which it is attached. */
  get generation(): number {
    return this.#generation;
  }

  /** Its own settings. */
  get config(): TenantConfig {
    return this.#config;
  }

  /** Takes over a newer generation and new settings, durable already. */
  update(generation: number, config: TenantConfig): void {
    Object.assign(this.#settings, timelineSettings(config));
    this.#generation = generation;
    this.#config = config;
  }

  /** The timeline. Throws NotFound, or Corrupt if it could not be loaded. */
  timeline(id: TimelineId): Timeline {
    const timeline = this.timelines.get(id);
    if (timeline !== undefined) return timeline;
    const why = this.broken.get(id);
    if (why !== undefined) throw new Corrupt(why);
    throw new NotFound(`Cannot find timeline ${id} of tenant ${this.tenantId}`);
  }

  /**
   * Creates a branch durably, of `ancestorLsn` (rounded up to 8) or the ancestor's last record.
   * The same call again gives the same timeline. Throws Conflict if it exists with other
   * parameters, BadRequest if the LSN is in the future or before the ancestor's start, NotFound
   * for no ancestor.
   */
  async createBranch(
    id: TimelineId,
    ancestorId: TimelineId,
    ancestorLsn?: Lsn,
  ): Promise<Timeline> {
    const lsn = ancestorLsn === undefined ? undefined : alignLsn(ancestorLsn);
    const creating = this.#creating.get(id);
    const existing = creating === undefined ? this.timelines.get(id) : await creating.created;
    if (existing !== undefined) return this.#sameBranch(existing, ancestorId, lsn);
    const ancestor = this.timeline(ancestorId);
    this.#checkFree(id);
    this.#checkFree(ancestorId);
    const branchLsn = lsn ?? ancestor.lastRecordLsn;
    if (branchLsn > ancestor.lastRecordLsn) {
      throw new BadRequest(
        `Cannot branch timeline ${ancestorId} at ${formatLsn(branchLsn)}: it is at ${
          formatLsn(ancestor.lastRecordLsn)
        }`,
      );
    }
    if (branchLsn < ancestor.startLsn) {
      throw new BadRequest(
        `Cannot branch timeline ${ancestorId} at ${formatLsn(branchLsn)}: it begins at ${
          formatLsn(ancestor.startLsn)
        }`,
      );
    }
    const isTip = branchLsn === ancestor.lastRecordLsn;
    const created = this.#create(id, {
      pgVersion: ancestor.pgVersion,
      diskConsistentLsn: branchLsn,
      prevRecordLsn: isTip ? ancestor.prevRecordLsn : INVALID_LSN,
      initdbLsn: ancestor.initdbLsn,
      startLsn: branchLsn,
      ancestorTimelineId: ancestorId,
      ancestorLsn: branchLsn,
      layers: [],
    });
    this.#creating.set(id, { ancestorId, created });
    return await created.finally(() => this.#creating.delete(id));
  }

  /**
   * Begins the import of a root timeline; it exists once the importer's finish() has resolved. If
   * anything fails before, call abort(). Throws Conflict if it exists or is being created.
   */
  importTimeline(id: TimelineId, pgVersion: number): TimelineImporter {
    if (this.timelines.has(id) || this.broken.has(id)) {
      throw new Conflict(`Cannot create timeline ${id}: it exists already`);
    }
    this.#checkFree(id);
    const directory = `${this.#directory}/${id}`;
    makeDirectory(directory);
    this.#busy.add(id);
    return new TimelineImporter({
      owner: { tenantId: this.tenantId, timelineId: id },
      pgVersion,
      generation: this.#generation,
      directory,
      resources: this.#resources,
      complete: async (part) => {
        await writeIndexPart(directory, part);
        this.#busy.delete(id);
        return this.#open(id, part);
      },
      cancel: () => {
        removeDirectory(directory);
        this.#busy.delete(id);
      },
    });
  }

  /**
   * Deletes a timeline durably, a branch that is being created as soon as it is. Throws Conflict
   * while it is imported or has children, NotFound.
   */
  async deleteTimeline(id: TimelineId): Promise<void> {
    await this.#creating.get(id)?.created.catch(() => {}); // its creator is told
    this.#checkNotBusy(id);
    if (!this.broken.has(id)) this.timeline(id);
    this.#checkChildless(id);
    this.#busy.add(id);
    try {
      await this.timelines.get(id)?.close();
      removeDirectory(`${this.#directory}/${id}`);
      this.timelines.delete(id);
      this.broken.delete(id);
      this.#orphans.delete(id);
    } finally {
      this.#busy.delete(id);
    }
  }

  /** Closes all timelines, after a last flush of each that can be flushed. */
  async close(): Promise<void> {
    for (const timeline of this.timelines.values()) {
      // Half a batch cannot be flushed, and its end will not come; its WAL will.
      if (timeline.state === "Active" && !timeline.isInBatch) {
        await timeline.flush().catch((thrown) =>
          log.warn("no last flush of timeline {id}: {why}", {
            id: timeline.timelineId,
            why: messageOf(thrown),
          })
        );
      }
      await timeline.close();
    }
    this.timelines.clear();
  }

  #load(): void {
    const parts = new Map<TimelineId, IndexPart>();
    for (const id of listDirectories(this.#directory, parseTimelineId)) {
      try {
        const part = loadTimelineDirectory(`${this.#directory}/${id}`);
        if (part !== undefined) parts.set(id, part);
      } catch (thrown) {
        this.#markBroken(id, messageOf(thrown));
      }
    }
    // Ancestors first: each round opens the timelines whose ancestor is open.
    for (let opened = -1; opened !== 0;) {
      opened = 0;
      for (const [id, part] of parts) {
        const ancestorId = part.ancestorTimelineId;
        if (ancestorId !== undefined && !this.timelines.has(ancestorId)) continue;
        parts.delete(id);
        this.#open(id, part);
        opened++;
      }
    }
    for (const [id, part] of parts) {
      const ancestor = part.ancestorTimelineId;
      if (ancestor !== undefined) this.#orphans.set(id, ancestor);
      this.#markBroken(id, `Cannot load timeline ${id}: its ancestor ${ancestor} is not there`);
    }
  }

  #markBroken(id: TimelineId, why: string): void {
    log.error("{why}", { why });
    this.broken.set(id, why);
  }

  async #create(id: TimelineId, part: IndexPart): Promise<Timeline> {
    const directory = `${this.#directory}/${id}`;
    try {
      makeDirectory(directory);
      await writeIndexPart(directory, part);
    } catch (thrown) {
      if (!(thrown instanceof SyncFailed)) ifThere(() => removeDirectory(directory));
      throw thrown;
    }
    return this.#open(id, part);
  }

  #open(id: TimelineId, part: IndexPart): Timeline {
    const ancestorId = part.ancestorTimelineId;
    const timeline = new Timeline({
      tenantId: this.tenantId,
      timelineId: id,
      directory: `${this.#directory}/${id}`,
      part,
      ancestor: ancestorId === undefined ? undefined : this.timeline(ancestorId),
      generation: () => this.#generation,
      settings: this.#settings,
      resources: this.#resources,
    });
    this.timelines.set(id, timeline);
    return timeline;
  }

  #checkFree(id: TimelineId): void {
    this.#checkNotBusy(id);
    const why = this.broken.get(id);
    if (why !== undefined) throw new Conflict(why);
  }

  #checkNotBusy(id: TimelineId): void {
    if (this.#busy.has(id)) {
      throw new Conflict(`Cannot use timeline ${id}: it is being created or deleted`);
    }
  }

  #checkChildless(id: TimelineId): void {
    const child = [...this.timelines.values()].find((other) => other.ancestorTimelineId === id);
    const unborn = [...this.#creating].find(([_, { ancestorId }]) => ancestorId === id);
    const orphan = [...this.#orphans].find(([_, ancestorId]) => ancestorId === id);
    const name = child?.timelineId ?? unborn?.[0] ?? orphan?.[0];
    if (name !== undefined) {
      throw new Conflict(`Cannot delete timeline ${id}: it has children, for example ${name}`);
    }
    // Of a timeline that cannot be read it is not known whose child it is.
    const unknown = [...this.broken.keys()].find((other) => !this.#orphans.has(other));
    if (unknown !== undefined && unknown !== id && !this.broken.has(id)) {
      throw new Conflict(
        `Cannot delete timeline ${id}: timeline ${unknown} cannot be read and may be its child`,
      );
    }
  }

  #sameBranch(existing: Timeline, ancestorId: TimelineId, lsn: Lsn | undefined): Timeline {
    const same = existing.ancestorTimelineId === ancestorId &&
      (lsn === undefined || existing.ancestorLsn === lsn);
    if (same) return existing;
    throw new Conflict(
      `Cannot create timeline ${existing.timelineId}: it exists, with other parameters`,
    );
  }
}
