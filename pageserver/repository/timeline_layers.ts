/**
 * All layers of one timeline and the search through them, newest first: the open layer, frozen
 * ones, finished ones. Ancestors are the business of read_path.ts.
 */
import { type Lsn, minLsn } from "../../libs/utils/lsn.ts";
import type { LayerSource, SearchKey } from "./blob_source.ts";
import type { Found } from "./found.ts";
import type { Key } from "./key.ts";
import type { Layer } from "./layer.ts";
import { layerFileName } from "./layer_format.ts";
import { LayerMap } from "./layer_map.ts";
import type { MemoryLayer } from "./memory_layer.ts";

/** One layer, for the management API. */
export interface LayerInfo {
  readonly kind: "Open" | "Frozen" | "Delta" | "Image";
  /** Empty for a layer that has no name yet. */
  readonly fileName: string;
  readonly sizeBytes: number;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
}

/** The layers of a timeline. Invariant: open is newer than frozen, frozen newer than finished. */
export class TimelineLayers {
  open: MemoryLayer | undefined;
  /** Oldest first, as they are flushed. */
  readonly frozen: MemoryLayer[] = [];
  readonly finished = new LayerMap<Layer>();

  /** As LayerSource.gather, over all layers. */
  gather(key: SearchKey, upTo: Lsn, found: Found): boolean {
    const { open, frozen, finished } = this;
    if (open !== undefined && open.lsnStart < upTo && open.gather(key, upTo, found)) return true;
    for (let i = frozen.length - 1; i >= 0; i--) {
      const layer = frozen[i]!;
      if (layer.lsnStart < upTo && layer.gather(key, upTo, found)) return true;
    }
    for (let i = finished.next(0, key, upTo); i >= 0; i = finished.next(i + 1, key, upTo)) {
      const { layer, lsnStart, lsnEnd } = finished.visits[i]!;
      if (lsnEnd <= found.after) {
        found.reachedAfter = true;
        return true;
      }
      if (layer.reader().gather(key, minLsn(upTo, lsnEnd), found, lsnStart)) return true;
    }
    return false;
  }

  /**
   * Visits the newest entry at or below `upTo` of each key of [from, to) in each layer, newest
   * layer first. (Of keys that are scanned there are no images but those a timeline begins with.)
   */
  scan(
    from: Key,
    to: Key,
    upTo: Lsn,
    visit: (key: Key, word: number, source: LayerSource) => void,
  ): void {
    const inMemory = this.open === undefined ? [] : [this.open];
    for (const layer of [...inMemory, ...this.frozen.toReversed()]) {
      if (layer.lsnStart >= upTo) continue;
      layer.scan(from, to, upTo, (key, word) => visit(key, word, layer));
    }
    const { finished } = this;
    for (
      let i = finished.nextInRange(0, from, to, upTo);
      i >= 0;
      i = finished.nextInRange(i + 1, from, to, upTo)
    ) {
      const { layer, lsnEnd } = finished.visits[i]!;
      // Each layer once as a whole, instead of its newest part below upTo
      if (lsnEnd < layer.lsnEnd && lsnEnd < upTo) continue;
      const reader = layer.reader();
      reader.scan(from, to, upTo, (key, word) => visit(key, word, reader));
    }
  }

  /** What there is, newest first; no layer ends beyond `lastRecordLsn`. */
  infos(lastRecordLsn: Lsn): LayerInfo[] {
    const { open, frozen, finished } = this;
    const inMemory = [...(open === undefined ? [] : [open]), ...frozen.toReversed()];
    return [
      ...inMemory.map((layer): LayerInfo => ({
        kind: layer === open ? "Open" : "Frozen",
        fileName: "",
        sizeBytes: layer.file.length,
        lsnStart: layer.lsnStart,
        lsnEnd: minLsn(layer.lsnEnd, lastRecordLsn),
      })),
      ...finished.layers.map((layer): LayerInfo => ({
        kind: layer.kind === "delta" ? "Delta" : "Image",
        fileName: layerFileName(layer),
        sizeBytes: layer.sizeBytes,
        lsnStart: layer.lsnStart,
        lsnEnd: layer.lsnEnd,
      })),
    ];
  }
}
