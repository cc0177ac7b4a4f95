/**
 * What all timelines of a pageserver share: the interner, the page cache, file handles, the
 * directories of open layers, and the limits of each.
 *
 *   page cache          cacheBytes              hits, misses, evictions
 *   file handles        HANDLES_MAX             closed by clock
 *   layer directories   directoryBytes          dropped by clock, loaded again at the next read
 *   open layers         OPEN_LAYER_BYTES_MAX    index and buffer of all; above it they are frozen
 */
import { FileTable } from "./file_table.ts";
import { KeyInterner } from "./key_interner.ts";
import { FilePageCache } from "./file_page_cache.ts";
import { RetiredFiles } from "./retired_files.ts";

const CACHE_BYTES_DEFAULT = 64 * 1024 * 1024;
const HANDLES_MAX = 512;
const DIRECTORY_BYTES_DEFAULT = 64 * 1024 * 1024;
const OPEN_LAYER_BYTES_MAX = 512 * 1024 * 1024;

/** What the shell passes in. */
export interface RepositoryOptions {
  /** Milliseconds, monotonic. */
  now: () => number;
  /** Lets other work of the event loop run; background work calls it about every millisecond. */
  pause: () => Promise<void>;
  /** Bytes of the page cache over layer files. */
  cacheBytes?: number;
  /** Bytes of directories of layers. */
  directoryBytes?: number;
  /** Scans may have other threads read ahead, because the event loop turns between reads. */
  readsAlongside?: boolean;
}

/** Something that holds memory and can drop it, to be loaded again. */
export interface Droppable {
  readonly memoryBytes: number;
  /** Used since the clock hand last passed. */
  recent: boolean;
  drop(): void;
}

/** Counters for the metrics page: current values, limits and totals. */
export interface RepositoryStats {
  cacheCapacityBytes: number;
  cacheHits: number;
  cacheMisses: number;
  cacheEvictions: number;
  fileHandles: number;
  fileHandlesMax: number;
  fileOpens: number;
  directoryBytes: number;
  directoryBytesMax: number;
  openLayerBytes: number;
  openLayerBytesMax: number;
  internedObjects: number;
}

/** Shared state of a pageserver's repository. */
export class Resources {
  readonly now: () => number;
  readonly pause: () => Promise<void>;
  readonly interner = new KeyInterner();
  readonly files = new FileTable(HANDLES_MAX);
  readonly cache: FilePageCache;
  /** Memory of all open and frozen layers; kept by the timelines. */
  openLayerBytes = 0;
  readonly retired = new RetiredFiles();
  readonly #directories: Droppable[] = [];
  readonly #directoryBytesMax: number;
  #directoryBytes = 0;
  #hand = 0;

  constructor(options: RepositoryOptions) {
    this.now = options.now;
    this.pause = options.pause;
    this.#directoryBytesMax = options.directoryBytes ?? DIRECTORY_BYTES_DEFAULT;
    const { cacheBytes = CACHE_BYTES_DEFAULT, readsAlongside = false } = options;
    this.cache = new FilePageCache(cacheBytes, this.files, readsAlongside);
  }

  /** Open layers hold more memory than they may. */
  get isCrowded(): boolean {
    return this.openLayerBytes > OPEN_LAYER_BYTES_MAX;
  }

  /** Counts a directory that was just loaded; drops others that were not used lately if need be. */
  addDirectory(loaded: Droppable): void {
    while (
      this.#directories.length > 0 &&
      this.#directoryBytes + loaded.memoryBytes > this.#directoryBytesMax
    ) {
      this.#dropOne();
    }
    this.#directories.push(loaded);
    this.#directoryBytes += loaded.memoryBytes;
  }

  /** Forgets a directory whose layer goes away. */
  removeDirectory(loaded: Droppable): void {
    const index = this.#directories.indexOf(loaded);
    if (index < 0) return;
    this.#directories.splice(index, 1);
    this.#directoryBytes -= loaded.memoryBytes;
  }

  /** Current values. */
  stats(): RepositoryStats {
    return {
      cacheCapacityBytes: this.cache.capacityBytes,
      cacheHits: this.cache.hits,
      cacheMisses: this.cache.misses,
      cacheEvictions: this.cache.evictions,
      fileHandles: this.files.openCount,
      fileHandlesMax: HANDLES_MAX,
      fileOpens: this.files.opens,
      directoryBytes: this.#directoryBytes,
      directoryBytesMax: this.#directoryBytesMax,
      openLayerBytes: this.openLayerBytes,
      openLayerBytesMax: OPEN_LAYER_BYTES_MAX,
      internedObjects: this.interner.size,
    };
  }

  #dropOne(): void {
    for (;;) {
      if (this.#hand >= this.#directories.length) this.#hand = 0;
      const candidate = this.#directories[this.#hand]!;
      if (!candidate.recent) {
        this.removeDirectory(candidate);
        candidate.drop();
        return;
      }
      candidate.recent = false;
      this.#hand++;
    }
  }
}
