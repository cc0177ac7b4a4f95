/**
 * All timelines of one safekeeper: `<directory>/<tenant>/<timeline>/`. They are opened at the
 * start, made or pulled only on request of the control plane (never by a proposer's greeting), and
 * a directory without a control file is what an unfinished creation or deletion left: no timeline.
 *
 * One that cannot be opened is broken: whoever asks for it is told why, and all others are served.
 * It is not made anew in its place, or it would vote and acknowledge without what it has promised.
 */
import type { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { makeDirectory } from "../libs/utils/durable.ts";
import { Conflict, messageOf, NotFound, Unavailable } from "../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";
import { backupLagBytes, brokenTimelineCount, offloadedCount, timelineCount } from "./metrics.ts";
import { PULLING_SUFFIX, type PullRequest, pullTimeline } from "./pull.ts";
import { RemoteWal } from "./remote_wal.ts";
import { removeDirectory, Timeline } from "./timeline.ts";
import { type NewTimeline, newTimelineState, type TimelineState } from "./timeline_state.ts";
import { WalBackup, type WalBackupSettings } from "./wal_backup.ts";

/** Where WAL goes, and when. */
export interface RemoteBackup {
  readonly storage: RemoteStorage;
  readonly settings: WalBackupSettings;
  /** Milliseconds of a clock. */
  readonly now: () => number;
}

const log = logger("safekeeper", "timelines");

/** Control files are brought up to date this often, so that a restart has little WAL to decode. */
const CHECKPOINT_INTERVAL_MS = 30_000;

/** See the head of this file. */
export class Timelines {
  readonly #directory: string;
  readonly #nodeId: number;
  readonly #remote: RemoteBackup | undefined;
  readonly #timelines = new Map<string, Timeline>();
  /** Called when a timeline appears or its commit LSN moves. */
  onCommit: (timeline: Timeline) => void = () => {};
  /** For safekeepers that want one, of which timelines are pulled. */
  peerToken: TokenSource | undefined;
  /** Why timelines that are here cannot be served, by tenant and timeline. */
  readonly #broken = new Map<string, string>();
  /** Timelines that are on their way. */
  readonly #pulls = new Map<string, Promise<string>>();
  /** The last deletion that was asked for, of those that are under way. */
  readonly #deletions = new Map<string, Promise<boolean>>();
  #lastCheckpointMs = -Infinity;
  #closed = false;

  /** Opens what is in `directory`. */
  constructor(directory: string, nodeId: number, remote?: RemoteBackup) {
    this.#directory = directory;
    this.#nodeId = nodeId;
    this.#remote = remote;
    removeUnfinishedPulls(directory);
    for (const [tenantId, timelineId, path] of timelineDirectories(directory)) {
      try {
        this.#add(Timeline.open(path, nodeId, tenantId, timelineId));
      } catch (thrown) {
        if (thrown instanceof Deno.errors.NotFound) {
          log.warning("ignoring {path}: it has no control file", { path });
        } else this.#markBroken(tenantId, timelineId, messageOf(thrown));
      }
    }
  }

  #markBroken(tenantId: TenantId, timelineId: TimelineId, why: string): void {
    const reason = `Cannot serve timeline ${tenantId}/${timelineId}: ${why}; put a good copy of ` +
      `its directory back and restart safekeeper ${this.#nodeId}, or replace it by another ` +
      `safekeeper ("neon safekeeper replace ${this.#nodeId}")`;
    log.error("{reason}", { reason });
    this.#broken.set(`${tenantId}/${timelineId}`, reason);
    brokenTimelineCount.set(this.#broken.size);
  }

  #add(timeline: Timeline): Timeline {
    this.#beginBackup(timeline);
    timeline.listeners.add({ onCommit: () => this.onCommit(timeline) });
    this.#timelines.set(`${timeline.tenantId}/${timeline.timelineId}`, timeline);
    timelineCount.set(this.#timelines.size);
    this.onCommit(timeline);
    return timeline;
  }

  #beginBackup(timeline: Timeline): void {
    if (this.#remote === undefined) return;
    const { storage, settings, now } = this.#remote;
    const wal = new RemoteWal(storage, timeline.acceptor.state);
    timeline.backup = new WalBackup(wal, timeline, this.#nodeId, settings, now);
  }

  /** All timelines. */
  all(): IterableIterator<Timeline> {
    return this.#timelines.values();
  }

  /** The timeline, or undefined. */
  find(tenantId: TenantId, timelineId: TimelineId): Timeline | undefined {
    return this.#timelines.get(`${tenantId}/${timelineId}`);
  }

  /** Those that are here and cannot be served, and why. */
  broken(): { tenantId: TenantId; timelineId: TimelineId; reason: string }[] {
    return [...this.#broken].map(([key, reason]) => {
      const [tenant, timeline] = key.split("/") as [string, string];
      return { tenantId: parseTenantId(tenant), timelineId: parseTimelineId(timeline), reason };
    });
  }

  #checkNotBroken(tenantId: TenantId, timelineId: TimelineId): void {
    const reason = this.#broken.get(`${tenantId}/${timelineId}`);
    if (reason !== undefined) throw new Unavailable(reason);
  }

  /** The timeline. Throws NotFound, Unavailable if it cannot be served. */
  get(tenantId: TenantId, timelineId: TimelineId): Timeline {
    const found = this.find(tenantId, timelineId);
    if (found !== undefined) return found;
    this.#checkNotBroken(tenantId, timelineId);
    throw new NotFound(`Cannot find timeline ${tenantId}/${timelineId} on this safekeeper`);
  }

  #checkNotLeaving(tenantId: TenantId, timelineId: TimelineId): void {
    if (!this.#deletions.has(`${tenantId}/${timelineId}`)) return;
    throw new Conflict(`Cannot make timeline ${timelineId}: the one before is being deleted`);
  }

  /**
   * Makes a timeline, or returns the one that is there if it was made with the same arguments.
   * Throws Conflict if it was not, or is being deleted, BadRequest for arguments that make no
   * timeline.
   */
  create(args: NewTimeline): Timeline {
    const state = newTimelineState(args);
    this.#checkNotLeaving(args.tenantId, args.timelineId);
    const existing = this.find(args.tenantId, args.timelineId);
    if (existing !== undefined) {
      checkSame(existing.acceptor.state, state);
      return existing;
    }
    this.#checkNotBroken(args.tenantId, args.timelineId);
    const tenantDirectory = `${this.#directory}/${args.tenantId}`;
    makeDirectory(tenantDirectory);
    const path = `${tenantDirectory}/${args.timelineId}`;
    return this.#add(Timeline.create(path, this.#nodeId, state));
  }

  /**
   * Gets a timeline from its members, unless it is here; a newer membership is then adopted.
   * Returns the HTTP address that it is from. Throws what pullTimeline() throws, Conflict if it is
   * being deleted.
   */
  pull(request: PullRequest): Promise<string | undefined> {
    const { tenantId, timelineId, membership } = request;
    const key = `${tenantId}/${timelineId}`;
    this.#checkNotLeaving(tenantId, timelineId);
    const running = this.#pulls.get(key);
    if (running !== undefined) return running;
    const existing = this.find(tenantId, timelineId);
    if (existing !== undefined) {
      if (membership.generation > 0) existing.switchMembership(membership);
      return Promise.resolve(undefined);
    }
    this.#checkNotBroken(tenantId, timelineId);
    const pull = this.#pull(request).finally(() => this.#pulls.delete(key));
    this.#pulls.set(key, pull);
    return pull;
  }

  async #pull(request: PullRequest): Promise<string> {
    const { tenantId, timelineId } = request;
    const directory = `${this.#directory}/${tenantId}/${timelineId}`;
    makeDirectory(`${this.#directory}/${tenantId}`);
    const hasRemote = this.#remote !== undefined;
    const host = await pullTimeline(request, {
      nodeId: this.#nodeId,
      hasRemote,
      token: this.peerToken,
      directory,
      checkWanted: () => {
        if (this.#closed) throw new Unavailable("Cannot go on: the safekeeper is stopping");
        this.#checkNotLeaving(tenantId, timelineId);
        if (this.find(tenantId, timelineId) === undefined) return;
        throw new Conflict(`Cannot pull timeline ${timelineId}: it was created meanwhile`);
      },
    });
    try {
      this.#add(Timeline.open(directory, this.#nodeId, tenantId, timelineId));
    } catch (thrown) {
      Deno.renameSync(directory, directory + PULLING_SUFFIX); // it never was one
      throw thrown;
    }
    return host;
  }

  /**
   * Removes a timeline, from remote storage first unless `onlyLocal`; returns whether there was
   * one; one that is on its way does not come. Throws what removing its objects throws; the
   * timeline is then still there. Of a broken one only the directory is removed: what it has in
   * remote storage is not known.
   */
  delete(tenantId: TenantId, timelineId: TimelineId, onlyLocal: boolean): Promise<boolean> {
    const key = `${tenantId}/${timelineId}`;
    const before: Promise<unknown> = this.#deletions.get(key) ?? this.#pulls.get(key) ??
      Promise.resolve();
    const deletion = before.catch(() => {}).then(() =>
      this.#delete(tenantId, timelineId, onlyLocal)
    )
      .finally(() => {
        if (this.#deletions.get(key) === deletion) this.#deletions.delete(key);
      });
    this.#deletions.set(key, deletion);
    return deletion;
  }

  async #delete(tenantId: TenantId, timelineId: TimelineId, onlyLocal: boolean): Promise<boolean> {
    const timeline = this.find(tenantId, timelineId);
    if (timeline === undefined) return this.#deleteBroken(`${tenantId}/${timelineId}`);
    const { backup } = timeline;
    if (backup !== undefined) {
      // Another safekeeper may upload once more, until it deletes the timeline, too.
      await backup.close();
      try {
        if (!onlyLocal) await backup.wal.removeAll();
      } catch (thrown) {
        this.#beginBackup(timeline);
        throw thrown;
      }
    }
    this.#timelines.delete(`${tenantId}/${timelineId}`);
    timelineCount.set(this.#timelines.size);
    timeline.delete();
    return true;
  }

  #deleteBroken(key: string): boolean {
    if (!this.#broken.delete(key)) return false;
    brokenTimelineCount.set(this.#broken.size);
    removeDirectory(`${this.#directory}/${key}`);
    return true;
  }

  /** Removes all timelines of a tenant; returns their ids. Throws what delete() throws. */
  async deleteTenant(tenantId: TenantId, onlyLocal: boolean): Promise<TimelineId[]> {
    const keys = [...this.#timelines.keys(), ...this.#broken.keys(), ...this.#pulls.keys()];
    const mine = keys.filter((key) => key.startsWith(`${tenantId}/`))
      .map((key) => parseTimelineId(key.slice(tenantId.length + 1)));
    await Promise.all(mine.map((id) => this.delete(tenantId, id, onlyLocal)));
    return mine;
  }

  /** Regular housekeeping: uploads and removes WAL, and now and then updates control files. */
  maintain(nowMs: number): void {
    const checkpoint = nowMs - this.#lastCheckpointMs >= CHECKPOINT_INTERVAL_MS;
    if (checkpoint) this.#lastCheckpointMs = nowMs;
    let offloaded = 0;
    let lagBytes = 0;
    for (const timeline of this.all()) {
      timeline.backup?.tick();
      if (timeline.isOffloaded) offloaded++;
      const { commitLsn, backupLsn } = timeline.acceptor;
      if (timeline.backup !== undefined) lagBytes += Math.max(0, commitLsn - backupLsn);
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
    offloadedCount.set(offloaded);
    backupLagBytes.set(lagBytes);
  }

  /** Makes everything durable and closes it. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.all()].map((timeline) => timeline.backup?.close()));
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

/** What was on its way when the safekeeper ended. */
function removeUnfinishedPulls(directory: string): void {
  for (const tenant of Deno.readDirSync(directory)) {
    if (!tenant.isDirectory) continue;
    for (const { name } of Deno.readDirSync(`${directory}/${tenant.name}`)) {
      if (!name.endsWith(PULLING_SUFFIX)) continue;
      Deno.removeSync(`${directory}/${tenant.name}/${name}`, { recursive: true });
    }
  }
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
