/**
 * Which layers can hold a version of a key: the finished layers of one timeline, newest first.
 *
 * Pure. Invariant: sorted by descending LSN end, image layers before delta layers of the same end.
 * No entry of a delta layer lies between those of another one, and an image layer's LSN is one that
 * everything at or below was finished at; so of one key all that an earlier layer has is newer than
 * what a later one has, but for an image, which says the same as the records that it follows. The
 * order is the order in which a search has to look.
 *
 * An image layer may be sparse: a key that it does not have may be in a later one.
 */
import { compareKeys, type Key } from "./key.ts";
import type { LayerDescription } from "./layer_format.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";

function comesBefore(a: LayerDescription, b: LayerDescription): boolean {
  if (a.lsnEnd !== b.lsnEnd) return a.lsnEnd > b.lsnEnd;
  return a.kind === "image" && b.kind === "delta";
}

/** A list of layers with its search order. */
export class LayerMap<T extends LayerDescription> {
  readonly #layers: T[] = [];

  /** All layers, newest first. */
  get layers(): readonly T[] {
    return this.#layers;
  }

  /** Adds a layer. */
  insert(layer: T): void {
    let at = this.#layers.length;
    while (at > 0 && comesBefore(layer, this.#layers[at - 1]!)) at--;
    this.#layers.splice(at, 0, layer);
  }

  /**
   * The index, at `from` or later, of the next layer that may hold a version of `key` at or below
   * `lsn`; -1 if there is none.
   */
  next(from: number, key: Key, lsn: Lsn): number {
    for (let i = from; i < this.#layers.length; i++) {
      const layer = this.#layers[i]!;
      if (layer.lsnStart >= lsn) continue;
      if (compareKeys(key, layer.first) >= 0 && compareKeys(key, layer.last) <= 0) return i;
    }
    return -1;
  }

  /** As next(), for any key in [first, end). */
  nextInRange(from: number, first: Key, end: Key, lsn: Lsn): number {
    for (let i = from; i < this.#layers.length; i++) {
      const layer = this.#layers[i]!;
      if (layer.lsnStart >= lsn) continue;
      if (compareKeys(layer.last, first) >= 0 && compareKeys(layer.first, end) < 0) return i;
    }
    return -1;
  }
}
