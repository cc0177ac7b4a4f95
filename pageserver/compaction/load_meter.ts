/**
 * How much of a processor compaction may take that nobody waits for: half of one while the
 * pageserver has little to do, a fifth beside reads or WAL.
 *
 * WAL counts from little on. Where a Postgres on the same machine does nothing but small
 * transactions, it has all processors to itself, and writes a megabyte a second: what is compacted
 * meanwhile comes off its throughput.
 */

/** Rest for each millisecond of work: alone, and beside a busy pageserver. */
const REST_IN_BACKGROUND = 1;
const REST_WHEN_BUSY = 4;
/** Pages of layers that are looked at in a second by who is busy reading. */
const BUSY_READS = 5000;
/** Bytes of WAL in a second of who is busy writing: some hundred small transactions. */
const BUSY_WAL_BYTES = 128 * 1024;

/** What a pageserver has done since its start. */
interface WorkDone {
  /** Pages of layers that were looked at. */
  readonly reads: number;
  /** Sum of what its timelines have received. */
  readonly walBytes: number;
}

/** Tells how busy a pageserver is, from what it has done between two looks. */
export class LoadMeter {
  #last: WorkDone = { reads: 0, walBytes: 0 };
  #lastMs = -Infinity;
  #rest = REST_IN_BACKGROUND;

  /** Rest for each millisecond of work, as of the last look. */
  get rest(): number {
    return this.#rest;
  }

  /** Looks at what was done. The first look sees no work. */
  look(done: WorkDone, nowMs: number): void {
    const seconds = Math.max(0.001, (nowMs - this.#lastMs) / 1000);
    const isBusy = (done.reads - this.#last.reads) / seconds > BUSY_READS ||
      (done.walBytes - this.#last.walBytes) / seconds > BUSY_WAL_BYTES;
    this.#rest = isBusy ? REST_WHEN_BUSY : REST_IN_BACKGROUND;
    this.#last = done;
    this.#lastMs = nowMs;
  }
}
