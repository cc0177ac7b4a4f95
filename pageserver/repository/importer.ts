/**
 * The initial import of a root timeline: the pages and values of a cluster as images at one LSN.
 *
 * Keys may come in any order and the LSN at the end (a base backup has its control file last).
 * Values are appended to layer files as they come; finish() puts the sorted index behind them, and
 * the timeline exists once its index_part is durable. What a crash leaves behind before that has
 * no index_part and is removed at the next start.
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { IndexPart } from "./index_part.ts";
import type { Key } from "./key.ts";
import type { ObjectId } from "./key_interner.ts";
import { EntryKind, type LayerDescription, type LayerOwner } from "./layer_format.ts";
import { writeLayer } from "./layer_writer.ts";
import { MemoryLayer } from "./memory_layer.ts";
import type { Resources } from "./resources.ts";
import type { Timeline } from "./timeline.ts";

/** Bytes of values after which the next layer file is begun. */
const LAYER_BYTES_MAX = 1024 * 1024 * 1024;
/** The entries' LSN until finish() says what it is. */
const PLACEHOLDER_LSN = 1 as Lsn;

/** What a tenant begins an import with. */
interface ImportOptions {
  readonly owner: LayerOwner;
  readonly pgVersion: number;
  readonly generation: number;
  /** The timeline's directory; there and empty. */
  readonly directory: string;
  readonly resources: Resources;
  /** Brings the timeline up from the layers that were written. */
  readonly complete: (part: IndexPart) => Promise<Timeline>;
  /** Removes the directory. */
  readonly cancel: () => void;
}

/** Writes the images of a root timeline. */
export class TimelineImporter {
  readonly #options: ImportOptions;
  readonly #layers: MemoryLayer[] = [];

  constructor(options: ImportOptions) {
    this.#options = options;
  }

  /** Adds a page. */
  putImage(
    object: ObjectId,
    block: number,
    bytes: Uint8Array,
    start: number,
    length: number,
  ): void {
    const layer = this.#openLayer();
    const blob = layer.file.appendBlob(bytes, start, length);
    layer.put(object, block, PLACEHOLDER_LSN, blob + EntryKind.image);
  }

  /** Adds a value. */
  putValue(key: Key, bytes: Uint8Array): void {
    const { interner } = this.#options.resources;
    const object = interner.intern(key.f1, key.f2, key.f3, key.f4, key.f5);
    this.putImage(object, key.f6, bytes, 0, bytes.length);
  }

  /**
   * Makes everything durable as of `startLsn` and brings the timeline up; WAL is expected from
   * there, the record before it starts at `prevRecordLsn`.
   */
  async finish(startLsn: Lsn, prevRecordLsn: Lsn): Promise<Timeline> {
    if (this.#layers.length === 0) {
      throw new BadRequest("Cannot import a cluster without any files");
    }
    const layers: LayerDescription[] = [];
    for (const layer of this.#layers) {
      layers.push(await this.#writeLayer(layer, startLsn));
      layer.file.closeWriter();
      this.#options.resources.files.release(layer.file.file);
      layer.unaccount();
    }
    return await this.#options.complete({
      pgVersion: this.#options.pgVersion,
      diskConsistentLsn: startLsn,
      prevRecordLsn,
      initdbLsn: startLsn,
      startLsn,
      ancestorTimelineId: undefined,
      ancestorLsn: INVALID_LSN,
      layers,
    });
  }

  /** Drops what was written. */
  abort(): void {
    for (const layer of this.#layers) {
      layer.unaccount();
      layer.file.discard();
    }
    this.#layers.length = 0;
    this.#options.cancel();
  }

  #writeLayer(layer: MemoryLayer, startLsn: Lsn): Promise<LayerDescription> {
    const { owner, generation, directory, resources } = this.#options;
    const job = {
      kind: "image" as const,
      owner,
      generation,
      lsnStart: (startLsn - 1) as Lsn,
      lsnEnd: startLsn,
      file: layer.file,
      index: layer.index,
      interner: resources.interner,
      pause: resources.pause,
    };
    return writeLayer(job, directory);
  }

  #openLayer(): MemoryLayer {
    const last = this.#layers.at(-1);
    if (last !== undefined && last.file.length < LAYER_BYTES_MAX) return last;
    last?.commit(); // brings its memory into the shared count
    const { directory, owner, resources } = this.#options;
    const path = `${directory}/import-${this.#layers.length}.___temp`;
    const layer = new MemoryLayer(path, INVALID_LSN, owner, resources);
    this.#layers.push(layer);
    return layer;
  }
}
