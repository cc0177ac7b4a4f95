/**
 * Which layers can hold a version of a key: the finished layers of one timeline, newest first, and
 * the visits that a search makes of them.
 *
 * Pure. An image layer's LSN is one that everything at or below was finished at, and its images say
 * the same as the records up to there. A delta layer that was made of several may have entries on
 * both sides of that LSN; what is below is of no use to who has found the image. So a search visits
 * such a layer in parts, and the image layer in between:
 *
 *   delta (100, 500]      visits   delta (300, 500] | image 300 | delta (100, 300]
 *   image at 300
 *
 * Invariant: visits are sorted by descending LSN end, those of image layers before those of delta
 * layers of the same end. No two visits of delta layers that can have the same key have LSNs in
 * common; so of one key all that an earlier visit finds is newer than what a later one does, but
 * for an image, which says the same as the records that it follows.
 *
 * An image layer may be sparse: a key that it does not have may be in a later one.
 */
import { compareKeys, type Key } from "./key.ts";
import type { LayerDescription } from "./layer_format.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";

/** A layer, or a part of its LSNs, as a search visits it: entries in (lsnStart, lsnEnd]. */
interface Visit<T> {
  readonly layer: T;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
}

function order(
  a: LayerDescription,
  aEnd: Lsn,
  b: LayerDescription,
  bEnd: Lsn,
): number {
  if (aEnd !== bEnd) return bEnd - aEnd;
  return (a.kind === "image" ? 0 : 1) - (b.kind === "image" ? 0 : 1);
}

/** Whether the key ranges of two layers have keys in common. */
function overlaps(a: LayerDescription, b: LayerDescription): boolean {
  return compareKeys(a.first, b.last) <= 0 && compareKeys(b.first, a.last) <= 0;
}

function visitsOf<T extends LayerDescription>(layers: readonly T[]): Visit<T>[] {
  const images = layers.filter(({ kind }) => kind === "image");
  const visits: Visit<T>[] = [];
  for (const layer of layers) {
    const { kind, lsnStart } = layer;
    let { lsnEnd } = layer;
    for (const image of kind === "image" ? [] : images) {
      if (image.lsnEnd >= lsnEnd) continue;
      if (image.lsnEnd <= lsnStart) break;
      if (!overlaps(image, layer)) continue;
      visits.push({ layer, lsnStart: image.lsnEnd, lsnEnd });
      lsnEnd = image.lsnEnd;
    }
    visits.push({ layer, lsnStart, lsnEnd });
  }
  return visits.sort((a, b) => order(a.layer, a.lsnEnd, b.layer, b.lsnEnd));
}

/** A list of layers with its search order. */
export class LayerMap<T extends LayerDescription> {
  readonly #layers: T[] = [];
  /** Of the layers as they are; undefined until they are asked for. */
  #visits: readonly Visit<T>[] | undefined;

  /** All layers, by descending LSN end. */
  get layers(): readonly T[] {
    return this.#layers;
  }

  /** What a search visits, in this order. */
  get visits(): readonly Visit<T>[] {
    return this.#visits ??= visitsOf(this.#layers);
  }

  /** Adds a layer. */
  insert(layer: T): void {
    let at = this.#layers.length;
    while (at > 0) {
      const before = this.#layers[at - 1]!;
      if (order(layer, layer.lsnEnd, before, before.lsnEnd) >= 0) break;
      at--;
    }
    this.#layers.splice(at, 0, layer);
    this.#visits = undefined;
  }

  /** Takes layers out. */
  remove(layers: ReadonlySet<T>): void {
    const kept = this.#layers.filter((layer) => !layers.has(layer));
    this.#layers.splice(0, this.#layers.length, ...kept);
    this.#visits = undefined;
  }

  /**
   * The index, at `from` or later, of the next visit that may find a version of `key` at or below
   * `lsn`; -1 if there is none.
   */
  next(from: number, key: Key, lsn: Lsn): number {
    const { visits } = this;
    for (let i = from; i < visits.length; i++) {
      const { layer, lsnStart } = visits[i]!;
      if (lsnStart >= lsn) continue;
      if (compareKeys(key, layer.first) >= 0 && compareKeys(key, layer.last) <= 0) return i;
    }
    return -1;
  }

  /** As next(), for any key in [first, end). */
  nextInRange(from: number, first: Key, end: Key, lsn: Lsn): number {
    const { visits } = this;
    for (let i = from; i < visits.length; i++) {
      const { layer, lsnStart } = visits[i]!;
      if (lsnStart >= lsn) continue;
      if (compareKeys(layer.last, first) >= 0 && compareKeys(layer.first, end) < 0) return i;
    }
    return -1;
  }
}
