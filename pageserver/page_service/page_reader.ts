/**
 * Pages as of an LSN: collected from the repository, rebuilt by redo, kept in the page cache.
 *
 * One reader serves the whole process. It is synchronous: layer files are local and cached, and a
 * page costs some ten microseconds, less than a turn of the event loop. Called by the page service,
 * base backup, ingest (CREATE DATABASE by file copy) and the HTTP API.
 *
 * Where a cluster has page checksums they are set here, once for each rebuilt page, so that every
 * reader gets them; redo on top of such a page disregards them.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { setPageChecksum } from "../../libs/postgres/page_checksum.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";
import { NotFound } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { reconstructPage } from "../walredo/reconstruct.ts";
import { newRedoKey, type PageTarget, type RedoKey } from "../walredo/types.ts";
import { PageCache } from "./page_cache.ts";

/** Reads pages. */
export class PageReader {
  readonly #cache: PageCache;
  #collected = new Reconstruction(true);
  readonly #target: PageTarget;
  /**
   * For what is not worth a slot, such as versions older than the cached one. In the slab of what
   * was collected: copies within one array are cheaper, and make no objects. Or where an image lies
   * in a layer's page, if that is all there is to it.
   */
  readonly #scratch: PageTarget;
  readonly #key: RedoKey = newRedoKey();

  constructor(cacheBytes: number) {
    this.#cache = new PageCache(cacheBytes);
    this.#target = { bytes: this.#cache.bytes, view: this.#cache.view, offset: 0 };
    const { bytes, view } = this.#collected;
    this.#scratch = { bytes, view, offset: 0 };
  }

  /**
   * A block of a relation as of `lsn` (<= last_record_lsn); the caller has checked that the
   * relation has that block. The returned bytes are valid until the next call of any method. Throws
   * what collecting and redo throw: Corrupt, RedoError; and, if the caller may be put off,
   * Postponed: then the page is to be asked for again.
   */
  relationPage(
    served: ServedTimeline,
    tag: RelTag,
    object: ObjectId,
    block: number,
    lsn: Lsn,
    mayPostpone = false,
  ): PageTarget {
    this.#collected.mayPostpone = mayPostpone;
    const key = this.#key;
    key.kind = "relation";
    key.spc = tag.spc;
    key.db = tag.db;
    key.rel = tag.rel;
    key.fork = tag.fork;
    key.block = block;
    return this.#page(served, object, block, lsn);
  }

  /** A page of an SLRU segment, likewise. */
  slruPage(
    served: ServedTimeline,
    slruKind: number,
    segno: number,
    block: number,
    lsn: Lsn,
  ): PageTarget {
    this.#collected.mayPostpone = false;
    const key = this.#key;
    key.kind = "slru";
    key.slruKind = slruKind;
    key.segno = segno;
    key.block = block;
    return this.#page(served, served.timeline.interner.slru(slruKind, segno), block, lsn);
  }

  /** Forgets all pages that it keeps; the next ones are rebuilt. */
  forgetPages(): void {
    this.#cache.clear();
    this.#target.bytes = this.#cache.bytes;
    this.#target.view = this.#cache.view;
    this.forgetLast();
  }

  /**
   * Forgets what the last page was made of: as much as the longest history of a page, and where an
   * image lay.
   */
  forgetLast(): void {
    this.#collected = new Reconstruction(true);
    this.#scratch.bytes = this.#collected.bytes;
    this.#scratch.view = this.#collected.view;
  }

  #page(served: ServedTimeline, object: ObjectId, block: number, lsn: Lsn): PageTarget {
    const cache = this.#cache;
    const slot = cache.find(served.cachedPages, object, block);
    const { timeline } = served;
    if (slot === undefined) {
      timeline.collect(object, block, lsn, this.#collected);
      if (!cache.isWorthASlot(object, block, this.#collected.recordCount)) {
        return this.#once(served);
      }
      return this.#rebuildInSlot(served, cache.take(served.cachedPages, object, block), lsn);
    }
    if (lsn > cache.at[slot]!) {
      timeline.collect(object, block, lsn, this.#collected, cache.at[slot]! as Lsn);
      return this.#rebuildInSlot(served, slot, lsn);
    }
    if (lsn >= cache.from[slot]!) return this.#inSlot(slot);
    timeline.collect(object, block, lsn, this.#collected);
    return this.#once(served);
  }

  /** Makes the page of what was collected for this one reader. */
  #once(served: ServedTimeline): PageTarget {
    const collected = this.#collected;
    const scratch = this.#scratch;
    if (collected.isElsewhere && collected.imageLength === PAGE_SIZE && !this.#sums(served)) {
      scratch.offset = collected.elsewhereOffset;
      scratch.bytes = collected.elsewhereBytes;
      scratch.view = collected.elsewhereView;
      return scratch;
    }
    collected.bringHome();
    collected.placeForPage(PAGE_SIZE, scratch);
    this.#reconstruct(served, scratch);
    return scratch;
  }

  #inSlot(slot: number): PageTarget {
    this.#target.offset = slot * PAGE_SIZE;
    return this.#target;
  }

  /** Brings the slot's page to `lsn`, with what was collected for it. */
  #rebuildInSlot(served: ServedTimeline, slot: number, lsn: Lsn): PageTarget {
    const cache = this.#cache;
    const collected = this.#collected;
    const target = this.#inSlot(slot);
    if (collected.continues && collected.recordCount === 0) {
      cache.at[slot] = lsn;
      return target;
    }
    collected.bringHome();
    try {
      this.#reconstruct(served, target);
    } catch (thrown) {
      cache.drop(slot);
      throw thrown;
    }
    const last = collected.recordCount - 1;
    cache.validate(slot, last >= 0 ? collected.recordLsn[last]! as Lsn : collected.imageLsn, lsn);
    return target;
  }

  /** Makes the page of #key in `target` out of what was collected. */
  #reconstruct(served: ServedTimeline, target: PageTarget): void {
    const key = this.#key;
    reconstructPage(this.#collected, key, target, served.version);
    if (this.#sums(served)) setPageChecksum(target.view, target.offset, key.block);
  }

  /** Whether the page of #key has a checksum. */
  #sums(served: ServedTimeline): boolean {
    return this.#key.kind === "relation" && served.hasPageChecksums;
  }
}

/** Throws NotFound unless a fork of `blocks` blocks (or ABSENT) has `block`. */
export function checkBlock(name: string, blocks: number, block: number, lsn: Lsn): void {
  if (blocks < 0) {
    throw new NotFound(`Cannot read ${name} at ${formatLsn(lsn)}: it does not exist`);
  }
  if (block >= blocks) {
    throw new NotFound(
      `Cannot read block ${block} of ${name} at ${formatLsn(lsn)}: it has ${blocks} blocks`,
    );
  }
}
