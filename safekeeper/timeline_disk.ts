/** A timeline's control file and WAL storage, as its core wants them, with their metrics. */
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
  readonly #storage: WalStorage;
  readonly #listener: FlushListener;

  constructor(directory: string, storage: WalStorage, listener: FlushListener) {
    this.#directory = directory;
    this.#storage = storage;
    this.#listener = listener;
  }

  get writeLsn(): Lsn {
    return this.#storage.writeLsn;
  }
  get recordLsn(): Lsn {
    return this.#storage.recordLsn;
  }
  get dirty(): boolean {
    return this.#storage.dirty;
  }

  persist(state: TimelineState): void {
    writeControlFile(this.#directory, state);
    persistedStates.inc();
  }

  write(lsn: Lsn, bytes: Uint8Array): void {
    this.#storage.write(lsn, bytes);
    receivedBytes.inc(bytes.length);
  }

  truncate(lsn: Lsn): void {
    this.#storage.truncate(lsn);
  }

  flushSync(): Lsn {
    return this.#storage.flushSync();
  }

  startFlush(): void {
    const begun = performance.now();
    this.#storage.flush().then((lsn) => {
      flushSeconds.observe((performance.now() - begun) / 1000);
      this.#listener.flushed(lsn);
    }).catch((thrown) => this.#listener.failed(thrown));
  }
}
