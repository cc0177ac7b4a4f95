/**
 * What is on disk of a timeline and its ancestors at one moment, as plain data that a worker can be
 * sent, and reading it there.
 *
 * Everything at or below a timeline's diskConsistentLsn is in its listed layers, which never change
 * and are not removed while it is open; a snapshot is read up to there and no further. An ancestor
 * whose diskConsistentLsn is below the branch point makes such reads fail with Unavailable.
 */
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { type Lsn, minLsn } from "../../libs/utils/lsn.ts";
import { Layer } from "./layer.ts";
import { type LayerDescription, layerFileName } from "./layer_format.ts";
import type { ReadableTimeline } from "./read_path.ts";
import type { Resources } from "./resources.ts";
import { TimelineLayers } from "./timeline_layers.ts";

/** A timeline's files and how they are to be read; can be cloned into a worker. */
export interface TimelineSnapshot {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** Its directory, with the files of `layers`. */
  readonly directory: string;
  readonly pgVersion: number;
  readonly generation: number;
  readonly startLsn: Lsn;
  readonly ancestorLsn: Lsn;
  readonly diskConsistentLsn: Lsn;
  /** Newest first; of an ancestor those below the branch point. */
  readonly layers: readonly LayerDescription[];
  readonly ancestor: TimelineSnapshot | undefined;
}

/** What a snapshot is taken of. */
interface SnapshotSource {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly pgVersion: number;
  readonly startLsn: Lsn;
  readonly ancestorLsn: Lsn;
  readonly diskConsistentLsn: Lsn;
  readonly layers: TimelineLayers;
  readonly ancestor: { snapshot(): TimelineSnapshot } | undefined;
}

/** Takes a snapshot. */
export function takeSnapshot(
  timeline: SnapshotSource,
  directory: string,
  generation: number,
): TimelineSnapshot {
  const { tenantId, timelineId, pgVersion, startLsn, ancestorLsn, diskConsistentLsn } = timeline;
  const ancestor = timeline.ancestor?.snapshot();
  return {
    tenantId,
    timelineId,
    directory,
    pgVersion,
    generation,
    startLsn,
    ancestorLsn,
    diskConsistentLsn,
    layers: timeline.layers.finished.layers.map(describe),
    ancestor: ancestor &&
      { ...ancestor, layers: ancestor.layers.filter(({ lsnStart }) => lsnStart < ancestorLsn) },
  };
}

/** The description alone: a layer itself cannot be cloned. */
function describe(layer: LayerDescription): LayerDescription {
  const { kind, inKeyOrder, first, last, lsnStart, lsnEnd, generation, sizeBytes } = layer;
  return { kind, inKeyOrder, first, last, lsnStart, lsnEnd, generation, sizeBytes };
}

/** What is on disk of a timeline and of its ancestors. */
interface OnDisk {
  readonly diskConsistentLsn: Lsn;
  readonly ancestorLsn: Lsn;
  readonly ancestor: OnDisk | undefined;
}

/** Whether the ancestors have on disk what lies below the branch points: a snapshot can be read. */
export function isWholeOnDisk(timeline: OnDisk): boolean {
  let upTo = timeline.ancestorLsn;
  for (let at = timeline.ancestor; at !== undefined; at = at.ancestor) {
    if (at.diskConsistentLsn < upTo) return false;
    upTo = minLsn(upTo, at.ancestorLsn);
  }
  return true;
}

/** Opens the layers for reading with the read path (read_path.ts). */
export function openSnapshot(snapshot: TimelineSnapshot, resources: Resources): ReadableTimeline {
  const layers = new TimelineLayers();
  for (const description of snapshot.layers) {
    const file = resources.files.register(`${snapshot.directory}/${layerFileName(description)}`);
    layers.finished.insert(new Layer(description, file, snapshot, resources));
  }
  const { timelineId, startLsn, ancestorLsn, diskConsistentLsn, ancestor } = snapshot;
  return {
    timelineId,
    startLsn,
    ancestorLsn,
    lastRecordLsn: diskConsistentLsn,
    layers,
    ancestor: ancestor && openSnapshot(ancestor, resources),
  };
}
