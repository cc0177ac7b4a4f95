/** The initial import of a root timeline. */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Key } from "./key.ts";
import type { ObjectId } from "./key_interner.ts";
import type { Timeline } from "./timeline.ts";

function unbuilt(): never {
  throw new Error("Cannot do this yet: the repository is being built");
}

/** Writes the images of a root timeline; any order of keys. */
export class TimelineImporter {
  putImage(
    _object: ObjectId,
    _block: number,
    _bytes: Uint8Array,
    _start: number,
    _length: number,
  ): void {
    unbuilt();
  }
  putValue(_key: Key, _bytes: Uint8Array): void {
    unbuilt();
  }
  /** Makes everything durable as of `startLsn` and brings the timeline up. */
  finish(_startLsn: Lsn, _prevRecordLsn: Lsn): Promise<Timeline> {
    return unbuilt();
  }
  /** Drops what was written. */
  abort(): void {
    unbuilt();
  }
}
