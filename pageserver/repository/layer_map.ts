/**
 * Which layers can hold a version of a key: the finished layers of one timeline, newest first.
 *
 * Pure. Invariant: sorted by descending LSN end; of the layers that hold entries of one key, no two
 * overlap in LSN, so the order is the order in which a search has to look.
 */
import { compareKeys, type Key } from "./key.ts";
import type { LayerDescription } from "./layer_format.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";

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
    while (at > 0 && this.#layers[at - 1]!.lsnEnd < layer.lsnEnd) at--;
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
