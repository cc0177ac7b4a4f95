/**
 * A timeline together with what all its users share: sizes of relations, parameters of the cluster
 * and the positions of its pages in the page cache. There is one per Timeline object, so ingest,
 * page service and base backup see the same sizes.
 */
import { type ControlFile, decodeControlFile } from "../libs/postgres/control_file.ts";
import { type PgVersion, pgVersion } from "../libs/postgres/versions.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { Relations } from "./relations.ts";
import { CONTROL_FILE_KEY } from "./repository/key.ts";
import type { Timeline } from "./repository/timeline.ts";

/** A timeline and what its users share. */
export class ServedTimeline {
  readonly timeline: Timeline;
  readonly relations: Relations;
  readonly version: PgVersion;
  /** (object, block) -> slot; kept by PageCache alone. */
  readonly cachedPages = new Map<number, number>();
  #control: ControlFile | undefined;
  #hasChecksums: boolean | undefined;

  constructor(timeline: Timeline) {
    this.timeline = timeline;
    this.relations = new Relations(timeline);
    this.version = pgVersion(timeline.pgVersion);
  }

  /** The control file of the cluster that was imported. Throws Corrupt if there is none. */
  get control(): ControlFile {
    if (this.#control === undefined) {
      const bytes = this.timeline.getValue(CONTROL_FILE_KEY, this.timeline.lastRecordLsn);
      if (bytes === undefined) {
        throw new Corrupt(`Cannot serve timeline ${this.timeline.timelineId}: no control file`);
      }
      this.#control = decodeControlFile(bytes);
    }
    return this.#control;
  }

  /** Whether the cluster's pages carry checksums in PostgreSQL's files. */
  get hasPageChecksums(): boolean {
    return this.#hasChecksums ??= this.control.dataChecksumVersion !== 0;
  }
}

const served = new WeakMap<Timeline, ServedTimeline>();

/** The one ServedTimeline of `timeline`. */
export function servedTimeline(timeline: Timeline): ServedTimeline {
  let found = served.get(timeline);
  if (found === undefined) {
    found = new ServedTimeline(timeline);
    served.set(timeline, found);
  }
  return found;
}
