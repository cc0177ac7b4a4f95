/** One branch of a tenant. */
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { Key } from "./key.ts";
import type { KeyInterner, ObjectId } from "./key_interner.ts";
import type { Reconstruction } from "./reconstruction.ts";

declare const blobBrand: unique symbol;

/** Where a record's bytes were stored by beginBlob; good until the next advance(). */
export type BlobRef = number & { readonly [blobBrand]: true };

/** One layer, for the management API. */
export interface LayerInfo {
  kind: "Open" | "Frozen" | "Delta" | "Image";
  fileName: string;
  sizeBytes: number;
  lsnStart: Lsn;
  lsnEnd: Lsn;
}

function unbuilt(): never {
  throw new Error("Cannot do this yet: the repository is being built");
}

/** One branch of a tenant. */
export class Timeline {
  readonly tenantId!: TenantId;
  readonly timelineId!: TimelineId;
  readonly pgVersion!: number;
  readonly ancestorTimelineId: TimelineId | undefined;
  /** INVALID_LSN for a root. */
  readonly ancestorLsn: Lsn = INVALID_LSN;
  readonly initdbLsn: Lsn = INVALID_LSN;
  /** The first LSN that can be read here; = ancestorLsn on a branch. */
  readonly startLsn: Lsn = INVALID_LSN;
  readonly interner!: KeyInterner;
  lastRecordLsn: Lsn = INVALID_LSN;
  /** INVALID_LSN if unknown (a branch that did not start at its ancestor's tip). */
  prevRecordLsn: Lsn = INVALID_LSN;
  diskConsistentLsn: Lsn = INVALID_LSN;

  /** Waits until `lsn` and, on a branch, the branch point in every ancestor is there. */
  waitForLsn(_lsn: Lsn, _timeoutMs: number, _signal?: AbortSignal): Promise<void> {
    return unbuilt();
  }
  /** Ingest awaits this before each batch: resolved unless too many frozen layers await their flush. */
  waitForRoom(): Promise<void> {
    return unbuilt();
  }
  beginBlob(_bytes: Uint8Array, _start: number, _length: number): BlobRef {
    return unbuilt();
  }
  putRecord(_object: ObjectId, _block: number, _lsn: Lsn, _blob: BlobRef, _init: boolean): void {
    unbuilt();
  }
  putImage(
    _object: ObjectId,
    _block: number,
    _lsn: Lsn,
    _bytes: Uint8Array,
    _start: number,
    _length: number,
  ): void {
    unbuilt();
  }
  putValue(_key: Key, _lsn: Lsn, _bytes: Uint8Array | null): void {
    unbuilt();
  }
  advance(_lastRecordLsn: Lsn, _prevRecordLsn: Lsn): void {
    unbuilt();
  }
  flush(): Promise<Lsn> {
    return unbuilt();
  }
  /**
   * `after` (optional): the caller holds the page as of that LSN; only what is newer is collected and
   * `into.continues` says that the caller's page is the base.
   */
  collect(
    _object: ObjectId,
    _block: number,
    _lsn: Lsn,
    _into: Reconstruction,
    _after?: Lsn,
  ): void {
    unbuilt();
  }
  getValue(_key: Key, _lsn: Lsn): Uint8Array | undefined {
    return unbuilt();
  }
  /** Keys in [from, to), ascending. `key` is reused, `value` is the visitor's to keep. */
  scan(_from: Key, _to: Key, _lsn: Lsn, _visit: (key: Key, value: Uint8Array) => void): void {
    unbuilt();
  }
  layers(): LayerInfo[] {
    return unbuilt();
  }
  /** Bytes of all layer files. */
  get physicalSizeBytes(): number {
    return unbuilt();
  }
}
