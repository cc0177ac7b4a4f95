/**
 * Rewrites delta layers that follow each other into one run in key order: the same entries with the
 * same values, in layers of which each has other keys.
 *
 * Runs in a worker, and in tests without one. It reads finished layers and writes under temporary
 * names; nothing is replaced before all is written and synced. What it holds, whatever it is given:
 * a batch of entries with their values (value_batch.ts, 36 MB), 64 KiB of each layer's index, and
 * the index of the layer that is being written (16 MB, more only for one key with so many
 * versions).
 *
 * A record that changes several pages is stored with each of them, unless it is long: then once in
 * a layer, with the first. A key's versions stay in one layer.
 */
import { assert } from "../../libs/utils/assert.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { makeKey } from "../repository/key.ts";
import { LayerCursor } from "../repository/layer_cursor.ts";
import { Layer } from "../repository/layer.ts";
import {
  EntryKind,
  KIND_MASK,
  type LayerDescription,
  layerFileName,
} from "../repository/layer_format.ts";
import type { Resources } from "../repository/resources.ts";
import { SortedLayerWriter } from "../repository/sorted_layer_writer.ts";
import type { WrittenLayer } from "../repository/timeline_flush.ts";
import type { TimelineSnapshot } from "../repository/timeline_snapshot.ts";
import { EntryMerge } from "./entry_merge.ts";
import { BATCH_BYTES, BATCH_ENTRIES_MAX, ValueBatch } from "./value_batch.ts";

/** Values from this length on are stored once in a layer. */
const LONG_BYTES = 2048;
/** Entries after which the next layer is begun. */
const LAYER_ENTRIES = 1_000_000;
/** Entries between pauses. */
const SLICE_ENTRIES = 1024;
const TWO_32 = 2 ** 32;

/** What to rewrite, and how. */
interface RewriteOrder {
  readonly snapshot: TimelineSnapshot;
  /** No other pass of this process has it. */
  readonly number: number;
  /** The layers, oldest first; no other delta layer has LSNs between theirs. */
  readonly layers: readonly LayerDescription[];
  readonly targetBytes: number;
}

/** What a rewrite is given beside its order. */
interface RewriteContext {
  readonly resources: Resources;
  /** Called after every few entries; throws to stop it. */
  readonly pause: () => Promise<void>;
}

/** Rewrites the layers; the written ones are the caller's. Throws, then there are none. */
export async function rewriteDeltas(
  order: RewriteOrder,
  context: RewriteContext,
): Promise<WrittenLayer[]> {
  const rewrite = new Rewrite(order, context);
  try {
    return await rewrite.run();
  } catch (thrown) {
    rewrite.discard();
    throw thrown;
  } finally {
    rewrite.close();
  }
}

class Rewrite {
  readonly #order: RewriteOrder;
  readonly #context: RewriteContext;
  readonly #sources: readonly Layer[];
  readonly #lsnStart: Lsn;
  readonly #lsnEnd: Lsn;
  readonly #written: WrittenLayer[] = [];
  /** Long values of the open layer: source and position, and where they are now. */
  readonly #stored = new Map<number, number>();
  readonly #key = makeKey(0, 0, 0, 0, 0, 0);
  #open: SortedLayerWriter | undefined;
  #sincePause = 0;

  constructor(order: RewriteOrder, context: RewriteContext) {
    this.#order = order;
    this.#context = context;
    const { snapshot, layers } = order;
    assert(layers.length > 0, "there is something to rewrite");
    this.#lsnStart = Math.min(...layers.map(({ lsnStart }) => lsnStart)) as Lsn;
    this.#lsnEnd = Math.max(...layers.map(({ lsnEnd }) => lsnEnd)) as Lsn;
    const { resources } = context;
    this.#sources = layers.map((layer) => {
      const file = resources.files.register(`${snapshot.directory}/${layerFileName(layer)}`);
      return new Layer(layer, file, snapshot, resources);
    });
  }

  async run(): Promise<WrittenLayer[]> {
    const { files } = this.#context.resources;
    const sources = this.#sources.map((layer) => ({
      file: layer.file,
      extent: layer.reader().extent,
    }));
    const cursors = sources.map(({ file, extent }) => new LayerCursor(files, file, extent));
    const merge = new EntryMerge(cursors);
    const batch = new ValueBatch(files, sources);
    let likely = BATCH_ENTRIES_MAX;
    while (merge.source >= 0 || batch.count > 0) {
      while (merge.source >= 0 && batch.count < likely) {
        const { key, lsn, word } = cursors[merge.source]!;
        batch.add(merge.source, key, lsn, word);
        merge.advance();
        if (this.#isSliceDone()) await this.#context.pause();
      }
      const ready = batch.fetch();
      await this.#write(batch, ready);
      likely = this.#likelyEntries(batch, ready);
      batch.drop(ready);
    }
    await this.#finishLayer();
    return this.#written;
  }

  /** How many entries fit a batch, as those of the last one did. */
  #likelyEntries(batch: ValueBatch, ready: number): number {
    let bytes = 0;
    for (let entry = 0; entry < ready; entry++) bytes += batch.lengthOf(entry);
    const left = batch.count - ready;
    const fit = Math.floor(0.8 * BATCH_BYTES / Math.max(1, bytes / ready));
    return Math.min(BATCH_ENTRIES_MAX, Math.max(left + 1, fit));
  }

  /** Removes what was written. */
  discard(): void {
    this.#open?.discard();
    for (const { temporaryPath } of this.#written) ifThere(() => Deno.removeSync(temporaryPath));
  }

  /** Closes all files. */
  close(): void {
    for (const layer of this.#sources) layer.close();
  }

  async #write(batch: ValueBatch, count: number): Promise<void> {
    for (let entry = 0; entry < count; entry++) {
      const isSameKey = entry > 0 && batch.hasKeyBefore(entry);
      if (!isSameKey && this.#nextKey(batch, entry)) await this.#finishLayer();
      const layer = this.#open ??= this.#openLayer();
      layer.add(this.#key, batch.lsnOf(entry), this.#store(layer, batch, entry));
      if (this.#isSliceDone()) await this.#context.pause();
    }
  }

  /** Notes the entry's key; whether the layer is to end before it. */
  #nextKey(batch: ValueBatch, entry: number): boolean {
    const { f1, f2, f3, f4, f5, f6 } = this.#key;
    const now = this.#key;
    if (entry === 0 || !batch.hasObjectBefore(entry)) batch.keyOf(entry, now);
    else now.f6 = batch.blockOf(entry);
    const open = this.#open;
    if (open === undefined) return false;
    const { targetBytes } = this.#order;
    if (open.valueBytes < targetBytes && open.entries < LAYER_ENTRIES) return false;
    return now.f6 !== f6 || now.f4 !== f4 || now.f5 !== f5 || now.f3 !== f3 || now.f2 !== f2 ||
      now.f1 !== f1;
  }

  /** Stores an entry's value in the layer; returns the word that says where. */
  #store(layer: SortedLayerWriter, batch: ValueBatch, entry: number): number {
    const word = batch.wordOf(entry);
    const kind = word & KIND_MASK;
    if (kind === EntryKind.tombstone) return word;
    const length = batch.lengthOf(entry);
    const place = batch.sourceOf(entry) * TWO_32 + word - kind;
    const known = length < LONG_BYTES ? undefined : this.#stored.get(place);
    const position = known ?? layer.store(batch.slab, batch.offsetOf(entry), length);
    if (length >= LONG_BYTES) this.#stored.set(place, position);
    return position + kind;
  }

  #openLayer(): SortedLayerWriter {
    const { snapshot, number } = this.#order;
    const path = `${snapshot.directory}/deltas-${number}-${this.#written.length}.___temp`;
    const { generation } = snapshot;
    const [lsnStart, lsnEnd] = [this.#lsnStart, this.#lsnEnd];
    const options = { path, owner: snapshot, generation, lsnStart, lsnEnd };
    return new SortedLayerWriter(options, this.#context.resources);
  }

  async #finishLayer(): Promise<void> {
    const open = this.#open;
    if (open === undefined) return;
    const layer = await open.finish();
    this.#open = undefined;
    this.#stored.clear();
    this.#written.push({ layer, temporaryPath: open.path });
    await this.#context.pause();
  }

  #isSliceDone(): boolean {
    if (++this.#sincePause < SLICE_ENTRIES) return false;
    this.#sincePause = 0;
    return true;
  }
}
