/**
 * Puts a timeline's WAL into remote storage and gets it back: carries out what wal_backup_plan.ts
 * decides. What has to survive a crash is in the control file before it is relied on:
 *
 *   whole segments        uploaded; then the backup LSN rises; then, perhaps, they are removed
 *   an unfinished one     recorded as started; uploaded; recorded as uploaded, the others as being
 *                         deleted; those deleted; forgotten
 *   offloading            recorded; then the files are removed (on start, if there still are any)
 *   getting it back       downloaded, checked and renamed into place; recorded
 *
 * Uploads and deletions are idempotent, so that doing a step again after a crash is all there is to
 * recovery.
 */
import { WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import { fileSource } from "../libs/remote_storage/upload_sources.ts";
import { crc32c } from "../libs/utils/crc32c.ts";
import { fsyncDirectory, readAt } from "../libs/utils/durable.ts";
import { Corrupt, messageOf, NotFound } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { backupFailures, offloads, uploadedBytes, uploadedSegments } from "./metrics.ts";
import type { RemoteWal } from "./remote_wal.ts";
import type { Timeline } from "./timeline.ts";
import type { PartialSegment } from "./timeline_state.ts";
import {
  type BackupView,
  electOffloader,
  hasWholeSegments,
  lastSegment,
  mayOffload,
  partialIsBehind,
  planPartial,
  stillThere,
  UploadWindow,
} from "./wal_backup_plan.ts";
import { openSegment, RESTORE_NAME } from "./wal_segments.ts";

const log = logger("safekeeper", "wal_backup");

/** When what is done. */
export interface WalBackupSettings {
  /** An unfinished segment is uploaded when it differs for so long from what was uploaded. */
  readonly partialTimeoutMs: number;
  /** Whether the WAL of idle timelines is taken off the disk. */
  readonly offload: boolean;
  /** How long a timeline must be idle for that. */
  readonly minResidentMs: number;
  /** Segments of one timeline that are uploaded at once. */
  readonly parallelUploads: number;
}

/** See the head of the file. */
export class WalBackup {
  readonly wal: RemoteWal;
  readonly #timeline: Timeline;
  readonly #nodeId: number;
  readonly #settings: WalBackupSettings;
  readonly #now: () => number;
  readonly #control = new AbortController();
  #work: Promise<void> | undefined;
  #restoring: Promise<void> | undefined;
  /** Since when the unfinished segment differs from what was uploaded. */
  #behindSinceMs: number | undefined;
  #idleSince: { ms: number; flushLsn: Lsn } | undefined;

  constructor(
    wal: RemoteWal,
    timeline: Timeline,
    nodeId: number,
    settings: WalBackupSettings,
    now: () => number,
  ) {
    this.wal = wal;
    this.#timeline = timeline;
    this.#nodeId = nodeId;
    this.#settings = settings;
    this.#now = now;
    this.#beginWhereWalBegins();
  }

  /** What was removed before there was remote storage nobody needs, nor can anybody upload it. */
  #beginWhereWalBegins(): void {
    const { firstLsn, timelineId, acceptor, isOffloaded } = this.#timeline;
    if (isOffloaded || acceptor.backupLsn >= firstLsn) return;
    this.#timeline.backedUp(firstLsn);
    const fields = { timeline: timelineId, lsn: formatLsn(firstLsn) };
    log.warning("{timeline}: remote storage has no WAL before {lsn}: it was removed", fields);
  }

  #view(): BackupView {
    const { state, commitLsn, flushLsn, backupLsn } = this.#timeline.acceptor;
    return {
      nodeId: this.#nodeId,
      segmentSize: state.walSegmentSize,
      localStartLsn: state.localStartLsn,
      termHistory: state.termHistory,
      partials: state.partialBackup,
      commitLsn,
      flushLsn,
      backupLsn,
    };
  }

  /**
   * Does what there is to do, unless that is under way already; resolves when it is done. Called
   * regularly. Never rejects: what failed is tried again the next time.
   */
  tick(): Promise<void> {
    if (this.#control.signal.aborted) return Promise.resolve();
    this.#work ??= this.#run().catch((thrown) => {
      if (this.#control.signal.aborted) return;
      backupFailures.inc();
      const timeline = this.#timeline.timelineId;
      log.warning("{timeline}: {message}", { timeline, message: messageOf(thrown) });
    }).finally(() => this.#work = undefined);
    return this.#work;
  }

  async #run(): Promise<void> {
    if (this.#timeline.isOffloaded) return;
    await this.#uploadSegments();
    await this.#backupPartial();
    this.#offloadIfIdle();
  }

  #isElected(): boolean {
    const { state, commitLsn, backupLsn } = this.#timeline.acceptor;
    const me = { id: this.#nodeId, localStartLsn: state.localStartLsn, commitLsn };
    const candidates = [me, ...this.#timeline.peers.alive(this.#now())];
    return electOffloader(candidates, backupLsn, state.timelineId) === this.#nodeId;
  }

  async #uploadSegments(): Promise<void> {
    const { acceptor } = this.#timeline;
    const { parallelUploads } = this.#settings;
    const window = new UploadWindow(acceptor.backupLsn, this.wal.segmentSize, parallelUploads);
    const running = new Set<Promise<void>>();
    let failed: { thrown: unknown } | undefined;
    for (;;) {
      const go = failed === undefined && this.#isElected();
      const segment = go ? window.start(acceptor.commitLsn) : undefined;
      if (segment === undefined) {
        if (running.size === 0) break;
        await Promise.race(running);
        continue;
      }
      const upload = this.#uploadSegment(segment)
        .then(() => this.#timeline.backedUp(window.uploaded(segment)))
        .catch((thrown) => void (failed ??= { thrown }))
        .finally(() => running.delete(upload));
      running.add(upload);
    }
    if (failed !== undefined) throw failed.thrown;
  }

  async #uploadSegment(segment: number): Promise<void> {
    const { segmentSize, storage } = this.wal;
    const source = fileSource(() => this.#openSegment(segment), segmentSize);
    try {
      await storage.upload(this.wal.segmentKey(segment), source, this.#control.signal);
    } catch (thrown) {
      // Another safekeeper has uploaded it, and it was removed here.
      if (thrown instanceof NotFound && this.#isBackedUp(segment)) return;
      throw thrown;
    }
    uploadedSegments.inc({ kind: "whole" });
    uploadedBytes.inc(segmentSize);
  }

  #isBackedUp(segment: number): boolean {
    const { segmentSize } = this.wal;
    return segmentStart(segment + 1, segmentSize) <= this.#timeline.acceptor.backupLsn;
  }

  #openSegment(segment: number): Deno.FsFile {
    const { directory } = this.#timeline;
    const file = openSegment(directory, segment, this.wal.segmentSize, { read: true });
    if (file !== undefined) return file;
    throw new NotFound(`Cannot upload WAL segment ${segment}: it is not in "${directory}"`);
  }

  async #backupPartial(): Promise<void> {
    const behind = partialIsBehind(this.#view());
    if (!behind) this.#behindSinceMs = undefined;
    else this.#behindSinceMs ??= this.#now();
    const waitedMs = behind ? this.#now() - this.#behindSinceMs! : 0;
    const due = behind && waitedMs >= this.#settings.partialTimeoutMs;
    const plan = planPartial(this.#view(), due);
    if (plan.kind === "upload") {
      await this.#uploadPartial(plan.partial);
      this.#behindSinceMs = undefined;
    }
    const after = plan.kind === "upload" ? planPartial(this.#view(), false) : plan;
    if (after.kind === "delete") await this.#deletePartials(after.partials);
  }

  async #uploadPartial(partial: PartialSegment): Promise<void> {
    const others = this.#others([partial]);
    this.#timeline.amendBackup({ partialBackup: [...others, partial] });
    const { segmentSize, storage } = this.wal;
    const segment = segmentNumber(partial.flushLsn, segmentSize);
    const bytes = partial.flushLsn % segmentSize;
    let crc = 0;
    const source = fileSource(() => this.#openSegment(segment), bytes, (piece, offset) => {
      crc = crc32c(piece, offset === 0 ? 0 : crc);
    });
    await storage.upload(this.wal.prefix + partial.name, source, this.#control.signal);
    // What was truncated meanwhile is not worth keeping.
    const good = stillThere(this.#view(), partial);
    const status = good ? "uploaded" : "deleting";
    this.#timeline.amendBackup({
      partialBackup: [...this.#others([partial]), { ...partial, status, crc32c: crc }],
    });
    uploadedSegments.inc({ kind: "partial" });
    uploadedBytes.inc(bytes);
  }

  async #deletePartials(partials: readonly PartialSegment[]): Promise<void> {
    const deleting = partials.map((partial) => ({ ...partial, status: "deleting" as const }));
    this.#timeline.amendBackup({ partialBackup: [...this.#others(partials), ...deleting] });
    const keys = partials.map(({ name }) => this.wal.prefix + name);
    await this.wal.storage.delete(keys, this.#control.signal);
    this.#timeline.amendBackup({ partialBackup: this.#others(partials) });
  }

  #others(partials: readonly PartialSegment[]): PartialSegment[] {
    const names = new Set(partials.map(({ name }) => name));
    return this.#view().partials.filter(({ name }) => !names.has(name));
  }

  #offloadIfIdle(): void {
    const { flushLsn } = this.#timeline.acceptor;
    const nowMs = this.#now();
    if (!this.#timeline.isIdle) this.#idleSince = undefined;
    else if (this.#idleSince?.flushLsn !== flushLsn) this.#idleSince = { ms: nowMs, flushLsn };
    const { offload, minResidentMs } = this.#settings;
    const since = this.#idleSince;
    if (!offload || since === undefined || nowMs - since.ms < minResidentMs) return;
    if (!mayOffload(this.#view())) return;
    this.#idleSince = undefined;
    this.#timeline.offload();
    offloads.inc({ direction: "off" });
  }

  /** Gets the WAL of an offloaded timeline back, the end of it. Throws what that throws. */
  restore(): Promise<void> {
    this.#restoring ??= this.#restore().finally(() => this.#restoring = undefined);
    return this.#restoring;
  }

  async #restore(): Promise<void> {
    const lsn = this.#timeline.acceptor.state.offloadedLsn;
    if (lsn === undefined) return;
    const { segmentSize, storage, prefix } = this.wal;
    const { directory } = this.#timeline;
    const segment = lastSegment(lsn, segmentSize);
    const name = segmentName(WAL_TIMELINE_ID, segment, segmentSize);
    const partial = lsn % segmentSize === 0 ? undefined : this.#view().partials
      .findLast(({ status, flushLsn }) => status === "uploaded" && flushLsn === lsn);
    if (lsn % segmentSize !== 0 && partial === undefined) {
      throw new Corrupt(`Cannot get WAL back: no object is known that ends at ${formatLsn(lsn)}`);
    }
    const key = partial === undefined ? this.wal.segmentKey(segment) : prefix + partial.name;
    const temporary = `${directory}/${RESTORE_NAME}`;
    await storage.download(key, temporary, this.#control.signal);
    finishRestored(temporary, key, partial, lsn, segmentSize);
    Deno.renameSync(temporary, `${directory}/${name}${partial === undefined ? "" : ".partial"}`);
    fsyncDirectory(directory);
    this.#timeline.restored();
    offloads.inc({ direction: "back" });
  }

  /** Whether whole segments wait for their upload. */
  get isPending(): boolean {
    const { backupLsn, commitLsn } = this.#timeline.acceptor;
    return hasWholeSegments(backupLsn, commitLsn, this.wal.segmentSize);
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#control.abort(new Error("the timeline is closed"));
    await Promise.allSettled([this.#work, this.#restoring]);
  }
}

/** Checks what was downloaded, and gives it the size of a segment, durably. */
function finishRestored(
  path: string,
  key: string,
  partial: PartialSegment | undefined,
  lsn: Lsn,
  segmentSize: number,
): void {
  const expected = partial === undefined ? segmentSize : lsn % segmentSize;
  using file = Deno.openSync(path, { read: true, write: true });
  const { size } = file.statSync();
  const bytes = new Uint8Array(expected);
  const whole = size === expected && readAt(file, 0, bytes) === expected;
  if (!whole || (partial !== undefined && crc32c(bytes) !== partial.crc32c)) {
    throw new Corrupt(`Cannot get WAL back: "${key}" (${size} bytes) is not what was uploaded`);
  }
  file.truncateSync(segmentSize);
  file.syncSync();
}
