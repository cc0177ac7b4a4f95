/**
 * A finished layer in a timeline's layer map: its description, its file, and, while recently used,
 * its reader.
 */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { LayerSource } from "./blob_source.ts";
import type { LayerFile } from "./file_table.ts";
import type { Key } from "./key.ts";
import type { LayerDescription, LayerKind, LayerOwner } from "./layer_format.ts";
import { LayerReader } from "./layer_reader.ts";
import type { Droppable, Resources } from "./resources.ts";

/** One listed layer. */
export class Layer implements LayerDescription, Droppable {
  readonly kind: LayerKind;
  readonly inKeyOrder: boolean;
  readonly first: Key;
  readonly last: Key;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  readonly generation: number;
  readonly sizeBytes: number;
  readonly file: LayerFile;
  recent = false;
  readonly #owner: LayerOwner;
  readonly #resources: Resources;
  #reader: LayerReader | undefined;

  constructor(
    description: LayerDescription,
    file: LayerFile,
    owner: LayerOwner,
    resources: Resources,
  ) {
    this.kind = description.kind;
    this.inKeyOrder = description.inKeyOrder;
    this.first = description.first;
    this.last = description.last;
    this.lsnStart = description.lsnStart;
    this.lsnEnd = description.lsnEnd;
    this.generation = description.generation;
    this.sizeBytes = description.sizeBytes;
    this.file = file;
    this.#owner = owner;
    this.#resources = resources;
  }

  /** Bytes of memory that its reader holds. */
  get memoryBytes(): number {
    return this.#reader?.memoryBytes ?? 0;
  }

  /** The reader, opened if need be. Throws Corrupt naming the file if it is missing or harmed. */
  reader(): LayerReader {
    this.recent = true;
    if (this.#reader !== undefined) return this.#reader;
    this.#reader = new LayerReader(this.file, this, this.#owner, this.#resources);
    this.#resources.addDirectory(this);
    return this.#reader;
  }

  /** Whether `source` is its reader. */
  isReadBy(source: LayerSource): boolean {
    return this.#reader === source;
  }

  drop(): void {
    this.#reader = undefined;
  }

  /** Gives back memory and file handle when the timeline is closed. */
  close(): void {
    this.#resources.removeDirectory(this);
    this.#reader = undefined;
    this.#resources.files.release(this.file);
  }
}
