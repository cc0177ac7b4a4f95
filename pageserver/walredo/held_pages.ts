/**
 * Pages by key, as many in memory as a limit says and the others where the caller puts them: what
 * the judge of redo (consistency.ts) knows of a cluster.
 *
 *   group   all pages of one relation or of one SLRU, found by its name
 *   frame   memory for one page, cut from slabs; lent to a page until another one needs it (clock:
 *           the first frame that was not used since the hand last passed)
 *   slot    place of a page outside, its own from the first time it is moved out until it is gone
 *
 * The contents of a page are valid until the second page after it is asked for. Frames of pages
 * that are gone are only lent again when the limit is reached: without a limit nothing ever moves,
 * and what a caller keeps of a page stays.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { slruPageNumber } from "../../libs/postgres/slru.ts";
import { assert } from "../../libs/utils/assert.ts";
import type { PageTarget, RedoKey } from "./types.ts";

/** Pages in one allocation. */
const SLAB_PAGES = 512;
/** One page at work, the one before, and some for the hand to pass. */
const FRAMES_MIN = 8;
const FORK_STRIDE = 2 ** 32;

/** Where pages go that do not fit in memory. */
export interface PageSpill {
  write(slot: number, page: PageTarget): void;
  /** Fills in what was last written to the slot. */
  read(slot: number, page: PageTarget): void;
}

interface Frame {
  readonly target: PageTarget;
  owner: HeldPage | undefined;
  used: boolean;
}

/** A page that is known. */
export class HeldPage {
  readonly key: RedoKey;
  /** Taken over from an image that we have no redo for: not ours to be judged. */
  adopted = false;
  /**
   * A map page whose bits the WAL never had. CREATE DATABASE logs copied pages of every fork as if
   * they were heap pages, without the "hole" between pd_lower and pd_upper, which on a map page is
   * everything (bufmgr.c, RelationCopyStorageUsingBuffer). The server keeps its bits; whoever
   * replays the WAL has none, and must then have a subset of the server's.
   */
  bitsLost = false;
  frame: Frame | undefined = undefined;
  /** -1: never moved out. */
  slot = -1;

  constructor(key: RedoKey) {
    this.key = key;
  }

  /** Its contents, see the head of the file for how long. */
  get target(): PageTarget {
    assert(this.frame !== undefined, "a page that is used is in memory");
    return this.frame.target;
  }
}

interface Group {
  readonly spc: number;
  readonly db: number;
  readonly rel: number;
  readonly pages: Map<number, HeldPage>;
}

function numberInGroup(key: RedoKey): number {
  return key.kind === "slru"
    ? slruPageNumber(key.segno, key.block)
    : key.fork * FORK_STRIDE + key.block;
}

/** See the head of the file. */
export class HeldPages {
  readonly #framesMax: number;
  readonly #spill: PageSpill | undefined;
  readonly #groups: Map<string, Group> = new Map();
  readonly #frames: Frame[] = [];
  readonly #freeFrames: Frame[] = [];
  readonly #freeSlots: number[] = [];
  #slots = 0;
  #hand = 0;
  #slab = new Uint8Array(0);
  #slabView = new DataView(this.#slab.buffer);
  #slabUsed = 0;
  /** The pages last asked for; they are not moved out. */
  #latest: HeldPage | undefined;
  #before: HeldPage | undefined;
  /** The relation last asked for: most records follow others of theirs. */
  #recent: Group = { spc: -1, db: -1, rel: -1, pages: new Map() };

  /** At most `framesMax` pages are in memory, if there is a place for others. */
  constructor(framesMax: number, spill: PageSpill | undefined) {
    this.#framesMax = spill === undefined ? Infinity : Math.max(framesMax, FRAMES_MIN);
    this.#spill = spill;
  }

  /** The page, in memory. */
  get(key: RedoKey): HeldPage | undefined {
    const page = this.#group(key)?.pages.get(numberInGroup(key));
    return page === undefined ? undefined : this.#fetch(page);
  }

  /** A page that is not known yet, with undefined contents. The key is copied. */
  add(key: RedoKey): HeldPage {
    const page = new HeldPage({ ...key });
    const group = this.#group(key) ?? this.#newGroup(key);
    group.pages.set(numberInGroup(key), page);
    return this.#fetch(page);
  }

  /** Forgets a page. */
  delete(page: HeldPage): void {
    this.#group(page.key)?.pages.delete(numberInGroup(page.key));
    this.#release(page);
  }

  /** Forgets all pages of a relation. */
  deleteRelation(spc: number, db: number, rel: number): void {
    const name = `${spc}/${db}/${rel}`;
    this.#deleteGroup(name, this.#groups.get(name));
  }

  /** Forgets all pages of a database's directory. */
  deleteDatabase(spc: number, db: number): void {
    for (const [name, group] of this.#groups) {
      if (group.spc === spc && group.db === db) this.#deleteGroup(name, group);
    }
  }

  /** Forgets all pages of an SLRU. */
  deleteSlru(kind: number): void {
    this.#deleteGroup(`slru ${kind}`, this.#groups.get(`slru ${kind}`));
  }

  /** All pages of a relation; they may be deleted on the way. */
  *ofRelation(spc: number, db: number, rel: number): Iterable<HeldPage> {
    yield* this.#each(this.#groups.get(`${spc}/${db}/${rel}`));
  }

  /** All pages of relations of a database's directory, as they are known now. */
  *ofDatabase(spc: number, db: number): Iterable<HeldPage> {
    const groups = [...this.#groups.values()].filter((one) => one.spc === spc && one.db === db);
    for (const group of groups) yield* this.#each(group);
  }

  /** All pages of an SLRU. */
  *ofSlru(kind: number): Iterable<HeldPage> {
    yield* this.#each(this.#groups.get(`slru ${kind}`));
  }

  /** All of them. */
  *[Symbol.iterator](): Iterator<HeldPage> {
    for (const group of this.#groups.values()) yield* this.#each(group);
  }

  *#each(group: Group | undefined): Iterable<HeldPage> {
    if (group === undefined) return;
    for (const page of group.pages.values()) yield this.#fetch(page);
  }

  #group(key: RedoKey): Group | undefined {
    if (key.kind === "slru") return this.#groups.get(`slru ${key.slruKind}`);
    const { spc, db, rel } = key;
    const recent = this.#recent;
    if (recent.rel === rel && recent.db === db && recent.spc === spc) return recent;
    const group = this.#groups.get(`${spc}/${db}/${rel}`);
    if (group !== undefined) this.#recent = group;
    return group;
  }

  #newGroup(key: RedoKey): Group {
    const { spc, db, rel } = key;
    const isSlru = key.kind === "slru";
    const group = isSlru
      ? { spc: -1, db: -1, rel: -1, pages: new Map() }
      : { spc, db, rel, pages: new Map() };
    this.#groups.set(isSlru ? `slru ${key.slruKind}` : `${spc}/${db}/${rel}`, group);
    return group;
  }

  #deleteGroup(name: string, group: Group | undefined): void {
    if (group === undefined) return;
    for (const page of group.pages.values()) this.#release(page);
    group.pages.clear(); // it may be the recent one
    this.#groups.delete(name);
    if (this.#recent === group) this.#recent = { spc: -1, db: -1, rel: -1, pages: new Map() };
  }

  #release(page: HeldPage): void {
    if (page.frame !== undefined) {
      page.frame.owner = undefined;
      this.#freeFrames.push(page.frame);
      page.frame = undefined;
    }
    if (page.slot >= 0) this.#freeSlots.push(page.slot);
    page.slot = -1;
  }

  /** Sees to it that the page is in memory. */
  #fetch(page: HeldPage): HeldPage {
    if (page !== this.#latest) {
      this.#before = this.#latest;
      this.#latest = page;
    }
    if (page.frame === undefined) {
      page.frame = this.#frame();
      page.frame.owner = page;
      if (page.slot >= 0) this.#spill!.read(page.slot, page.frame.target);
    }
    page.frame.used = true;
    return page;
  }

  /** A frame without owner. */
  #frame(): Frame {
    if (this.#frames.length < this.#framesMax) return this.#newFrame();
    return this.#freeFrames.pop() ?? this.#moveOut();
  }

  #newFrame(): Frame {
    if (this.#slabUsed === this.#slab.length) {
      const pages = Math.min(SLAB_PAGES, this.#framesMax - this.#frames.length);
      this.#slab = new Uint8Array(pages * PAGE_SIZE);
      this.#slabView = new DataView(this.#slab.buffer);
      this.#slabUsed = 0;
    }
    const target = { bytes: this.#slab, view: this.#slabView, offset: this.#slabUsed };
    this.#slabUsed += PAGE_SIZE;
    const frame = { target, owner: undefined, used: true };
    this.#frames.push(frame);
    return frame;
  }

  #moveOut(): Frame {
    for (;; this.#hand++) {
      const frame = this.#frames[this.#hand % this.#frames.length]!;
      const { owner } = frame;
      if (owner === undefined || owner === this.#latest || owner === this.#before) continue;
      if (frame.used) {
        frame.used = false;
        continue;
      }
      if (owner.slot < 0) owner.slot = this.#freeSlots.pop() ?? this.#slots++;
      this.#spill!.write(owner.slot, frame.target);
      owner.frame = undefined;
      frame.owner = undefined;
      return frame;
    }
  }
}
