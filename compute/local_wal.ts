/** The WAL files in a data directory's pg_wal, read by position. */
import { WAL_SEGMENT_SIZE, WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber } from "../libs/postgres/wal/segment.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { addLsn, type Lsn } from "../libs/utils/lsn.ts";

/** Keeps the segment that was read last open. */
export class LocalWal implements Disposable {
  readonly #directory: string;
  #segment = -1;
  #file: Deno.FsFile | undefined;
  #disposed = false;

  constructor(pgdata: string) {
    this.#directory = `${pgdata}/pg_wal`;
  }

  /** Fills `into` with the WAL from `start` on, as far as there are files; returns the count. */
  read(start: Lsn, into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const at = addLsn(start, done);
      const file = this.#open(segmentNumber(at, WAL_SEGMENT_SIZE));
      if (file === undefined) return done;
      const inSegment = at % WAL_SEGMENT_SIZE;
      const limit = Math.min(into.length, done + WAL_SEGMENT_SIZE - inSegment);
      file.seekSync(inSegment, Deno.SeekMode.Start);
      while (done < limit) {
        const count = file.readSync(into.subarray(done, limit));
        if (count === null) return done;
        done += count;
      }
    }
    return done;
  }

  #open(segment: number): Deno.FsFile | undefined {
    if (segment === this.#segment) return this.#file;
    this.#close();
    if (this.#disposed) return undefined;
    const name = segmentName(WAL_TIMELINE_ID, segment, WAL_SEGMENT_SIZE);
    this.#file = ifThere(() => Deno.openSync(`${this.#directory}/${name}`));
    if (this.#file !== undefined) this.#segment = segment;
    return this.#file;
  }

  /** Nothing is read any more. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#close();
  }

  #close(): void {
    this.#file?.close();
    this.#file = undefined;
    this.#segment = -1;
  }
}
