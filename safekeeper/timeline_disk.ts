/**
 * A timeline's control file and WAL storage, as its core wants them, with their metrics. While the
 * WAL is in remote storage alone, its positions stand still and nothing can be written.
 */
import { Unavailable } from "../libs/utils/errors.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { writeControlFile } from "./control_file.ts";
import { flushSeconds, persistedStates, receivedBytes } from "./metrics.ts";
import type { TimelineDisk } from "./timeline_core.ts";
import type { TimelineState } from "./timeline_state.ts";
import type { WalStorage } from "./wal_storage.ts";

/** Told how a sync that was started has ended. */
interface FlushListener {
  flushed(lsn: Lsn): void;
  failed(thrown: unknown): void;
}

/** See the head of the file. */
export class TimelineFiles implements TimelineDisk {
  readonly #directory: string;
  readonly #listener: FlushListener;
  /** Or where the WAL ends that is not on disk. */
  #wal: WalStorage | Lsn;

  constructor(directory: string, wal: WalStorage | Lsn, listener: FlushListener) {
    this.#directory = directory;
    this.#wal = wal;
    this.#listener = listener;
  }

  /** The WAL on disk; undefined if it is in remote storage alone. */
  get storage(): WalStorage | undefined {
    return typeof this.#wal === "number" ? undefined : this.#wal;
  }

  /** The WAL is on disk, or ends at a position and is not. */
  set wal(wal: WalStorage | Lsn) {
    this.#wal = wal;
  }

  get writeLsn(): Lsn {
    return typeof this.#wal === "number" ? this.#wal : this.#wal.writeLsn;
  }
  get recordLsn(): Lsn {
    return typeof this.#wal === "number" ? this.#wal : this.#wal.recordLsn;
  }
  get dirty(): boolean {
    return this.storage?.dirty ?? false;
  }

  #present(): WalStorage {
    if (typeof this.#wal !== "number") return this.#wal;
    throw new Unavailable(`Cannot write WAL in "${this.#directory}": it is in remote storage`);
  }

  persist(state: TimelineState): void {
    writeControlFile(this.#directory, state);
    persistedStates.inc();
  }

  write(lsn: Lsn, bytes: Uint8Array): void {
    this.#present().write(lsn, bytes);
    receivedBytes.inc(bytes.length);
  }

  truncate(lsn: Lsn): void {
    this.#present().truncate(lsn);
  }

  flushSync(): Lsn {
    return this.#present().flushSync();
  }

  startFlush(): void {
    try {
      const wal = this.#present();
      const begunMs = performance.now();
      const tookMs = wal.flushInPlace(begunMs);
      if (tookMs === undefined) this.#flushInBackground(wal, begunMs);
      else this.#flushed(wal.flushLsn, tookMs);
    } catch (thrown) {
      this.#listener.failed(thrown);
    }
  }

  #flushInBackground(wal: WalStorage, begunMs: number): void {
    wal.flush().then((lsn) => this.#flushed(lsn, performance.now() - begunMs))
      .catch((thrown) => this.#listener.failed(thrown));
  }

  #flushed(lsn: Lsn, tookMs: number): void {
    flushSeconds.observe(tookMs / 1000);
    this.#listener.flushed(lsn);
  }
}
