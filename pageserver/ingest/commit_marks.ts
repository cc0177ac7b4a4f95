/** Ingest of the marks that commits leave for a search by time (commit_marks.ts one folder up). */
import type { Lsn } from "../../libs/utils/lsn.ts";
import { lastCommit, MARK_BYTES, secondOf, writeMark } from "../commit_marks.ts";
import { COMMIT_SECOND_KEY, commitMarkKey } from "../repository/key.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import type { Timeline } from "../repository/timeline.ts";

/** Puts the marks of one timeline. */
export class CommitMarks {
  readonly #timeline: Timeline;
  readonly #seconds: ObjectId;
  readonly #commits: ObjectId;
  readonly #mark: { lsn: Lsn; time: number };
  #second: number;
  readonly #bytes = new Uint8Array(MARK_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);

  /** Goes on behind what the timeline has. */
  constructor(timeline: Timeline) {
    const { interner, lastRecordLsn } = timeline;
    const { f1, f2, f3, f4, f5 } = COMMIT_SECOND_KEY;
    const commit = commitMarkKey(0);
    const last = lastCommit(timeline, lastRecordLsn);
    this.#timeline = timeline;
    this.#seconds = interner.intern(f1, f2, f3, f4, f5);
    this.#commits = interner.intern(commit.f1, commit.f2, commit.f3, commit.f4, commit.f5);
    this.#mark = { lsn: lastRecordLsn, time: last?.time ?? 0 };
    this.#second = last === undefined ? -1 : secondOf(last.time);
  }

  /** A commit whose record ends at `lsn`; `time` in microseconds since 2000. */
  put(lsn: Lsn, time: number): void {
    const timeline = this.#timeline;
    const mark = this.#mark;
    mark.lsn = lsn;
    mark.time = Math.max(mark.time, time);
    writeMark(this.#view, mark);
    const second = secondOf(mark.time);
    if (second !== this.#second) {
      this.#second = second;
      timeline.putImage(this.#seconds, COMMIT_SECOND_KEY.f6, lsn, this.#bytes, 0, MARK_BYTES);
    }
    timeline.putImage(this.#commits, second, lsn, this.#bytes, 0, MARK_BYTES);
  }
}
