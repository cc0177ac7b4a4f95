/**
 * Reads over a timeline and its ancestors.
 *
 * A branch's own layers hold what came after its branch point; a search that finds no base there
 * goes on in the ancestor, at the branch point at most, and so on up to the root. A search that
 * has to go on into an ancestor that has not (again) ingested the branch point is an error, never
 * an old value.
 */
import { Corrupt, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn, minLsn } from "../../libs/utils/lsn.ts";
import type { LayerSource, SearchKey } from "./blob_source.ts";
import { Found } from "./found.ts";
import { compareKeys, describeKey, formatKey, isInherited, type Key, makeKey } from "./key.ts";
import { EntryKind, KIND_MASK, layerFileName } from "./layer_format.ts";
import { Reconstruction } from "./reconstruction.ts";
import type { TimelineLayers } from "./timeline_layers.ts";

/** What a read needs of a timeline. */
export interface ReadableTimeline {
  readonly timelineId: string;
  readonly lastRecordLsn: Lsn;
  readonly startLsn: Lsn;
  readonly layers: TimelineLayers;
  readonly ancestor: ReadableTimeline | undefined;
  readonly ancestorLsn: Lsn;
}

// Reads are synchronous, so one of each serves all timelines.
const found = new Found();
const valueScratch = new Reconstruction();

function checkReached(timeline: ReadableTimeline, lsn: Lsn): void {
  if (timeline.lastRecordLsn >= lsn) return;
  throw new Unavailable(
    `Cannot read timeline ${timeline.timelineId} at ${formatLsn(lsn)}: it is at ${
      formatLsn(timeline.lastRecordLsn)
    }`,
  );
}

/** Fills `found` with the key's entries in (found.after, lsn]. */
function search(timeline: ReadableTimeline, key: SearchKey, lsn: Lsn): void {
  let at = timeline;
  let upTo = lsn;
  for (;;) {
    checkReached(at, upTo);
    if (at.layers.gather(key, upTo, found)) return;
    if (at.ancestor === undefined) break;
    if (!isInherited(key.f1)) return;
    upTo = minLsn(upTo, at.ancestorLsn);
    if (upTo <= found.after) {
      found.reachedAfter = true;
      return;
    }
    at = at.ancestor;
  }
  checkNotBefore(at, upTo);
}

/** For the root of a chain: a position before it has no versions, which is not the same as none. */
function checkNotBefore(root: ReadableTimeline, lsn: Lsn): void {
  if (lsn >= root.startLsn) return;
  throw new NotFound(
    `Cannot read timeline ${root.timelineId} at ${formatLsn(lsn)}: it begins at ${
      formatLsn(root.startLsn)
    }`,
  );
}

function missing(timeline: ReadableTimeline, key: Key, lsn: Lsn): Error {
  const where = `${describeKey(key)} on timeline ${timeline.timelineId} at ${formatLsn(lsn)}`;
  if (found.count === 0) return new NotFound(`Cannot read ${where}: it has no version there`);
  return new Corrupt(`Cannot read ${where}: missing image for ${found.count} WAL records`);
}

/** See Timeline.collect. */
export function collectPage(
  timeline: ReadableTimeline,
  key: SearchKey,
  lsn: Lsn,
  into: Reconstruction,
  after: Lsn | undefined,
): void {
  into.begin();
  found.begin(after ?? -1);
  search(timeline, key, lsn);
  if (!found.hasBase) {
    const continues = after !== undefined && (found.reachedAfter || lsn <= after);
    if (!continues) throw missing(timeline, key, lsn);
    into.continues = true;
  } else if (found.baseKind === EntryKind.tombstone) {
    throw new NotFound(`Cannot read ${describeKey(key)} at ${formatLsn(lsn)}: it was deleted`);
  }
  found.readInto(into);
}

/** An entry that a page is made of, and the layer it is in. */
export interface ExplainedEntry {
  readonly lsn: Lsn;
  readonly kind: "image" | "record" | "initRecord";
  readonly layer: ExplainedLayer;
}

/** A layer as a read met it. */
export interface ExplainedLayer {
  readonly timelineId: string;
  /** "in memory" for one that is not written yet. */
  readonly name: string;
  readonly lsnStart: Lsn;
  /** The last record's end, for a layer that is still open. */
  readonly lsnEnd: Lsn;
}

/** See Timeline.explain. */
export function explainPage(
  timeline: ReadableTimeline,
  key: SearchKey,
  lsn: Lsn,
): ExplainedEntry[] {
  found.begin(-1);
  search(timeline, key, lsn);
  if (!found.hasBase) throw missing(timeline, key, lsn);
  const layers = new Map<LayerSource, ExplainedLayer>();
  const entries: ExplainedEntry[] = [];
  found.forEach((at, kind, source) => {
    const layer = layers.get(source) ?? explainLayer(timeline, source);
    layers.set(source, layer);
    const name = kind === EntryKind.image
      ? "image"
      : kind === EntryKind.initRecord
      ? "initRecord"
      : "record";
    entries.push({ lsn: at, kind: name, layer });
  });
  return entries;
}

function explainLayer(timeline: ReadableTimeline, source: LayerSource): ExplainedLayer {
  for (let at: ReadableTimeline | undefined = timeline; at !== undefined; at = at.ancestor) {
    const { open, frozen, finished } = at.layers;
    const { timelineId } = at;
    const { lsnStart } = source;
    const lsnEnd = minLsn(source.lsnEnd, at.lastRecordLsn);
    if (source === open || frozen.some((layer) => layer === source)) {
      return { timelineId, name: "in memory", lsnStart, lsnEnd };
    }
    const layer = finished.layers.find((known) => known.isReadBy(source));
    if (layer !== undefined) return { timelineId, name: layerFileName(layer), lsnStart, lsnEnd };
  }
  throw new Corrupt("Cannot explain a page: no layer has what was read");
}

/** See Timeline.getValue. */
export function getValue(
  timeline: ReadableTimeline,
  key: SearchKey,
  lsn: Lsn,
): Uint8Array | undefined {
  found.begin(-1);
  search(timeline, key, lsn);
  if (found.count === 0) return undefined;
  if (found.count > 1 || !found.hasBase) throw missing(timeline, key, lsn);
  if (found.baseKind === EntryKind.tombstone) return undefined;
  valueScratch.begin();
  found.readInto(valueScratch);
  return valueScratch.bytes.slice(0, valueScratch.length);
}

interface Candidate {
  readonly key: Key;
  readonly word: number;
  readonly source: LayerSource;
}

/** See Timeline.scan. */
export function scanKeys(
  timeline: ReadableTimeline,
  from: Key,
  to: Key,
  lsn: Lsn,
  visit: (key: Key, value: Uint8Array) => void,
): void {
  const newest = new Map<string, Candidate>();
  let ancestorDepth = 0;
  const note = (key: Key, word: number, source: LayerSource) => {
    if (!isInherited(key.f1) && ancestorDepth > 0) return;
    const id = formatKey(key);
    if (!newest.has(id)) newest.set(id, { key: { ...key }, word, source });
  };
  let upTo = lsn;
  for (let at: ReadableTimeline | undefined = timeline; at !== undefined; at = at.ancestor) {
    checkReached(at, upTo);
    if (at.ancestor === undefined) checkNotBefore(at, upTo);
    at.layers.scan(from, to, upTo, note);
    upTo = minLsn(upTo, at.ancestorLsn);
    ancestorDepth++;
  }
  const candidates = [...newest.values()].sort((a, b) => compareKeys(a.key, b.key));
  const key = makeKey(0, 0, 0, 0, 0, 0);
  for (const candidate of candidates) {
    const kind = candidate.word & KIND_MASK;
    if (kind === EntryKind.tombstone) continue;
    valueScratch.begin();
    candidate.source.readBlob(candidate.word - kind, 0, valueScratch);
    Object.assign(key, candidate.key);
    visit(key, valueScratch.bytes.slice(0, valueScratch.length));
  }
}
