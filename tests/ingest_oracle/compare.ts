/**
 * Compares what the pageserver says of a timeline with the files of the PostgreSQL that wrote its
 * WAL, page by page: a page that differs is a wrong answer.
 *
 * Left out: free space maps (not in WAL), unlogged relations. Masked: what PostgreSQL's own checks
 * mask (walredo/masking.ts), but pd_lsn, the all-visible flag and GiST's NSN are compared. Pages
 * that only PostgreSQL has must be all zeros. Two things are not in WAL, for a standby neither: how
 * far a sequence has come since it was last logged, and the visibility map of a database that was
 * copied through WAL (its bits lie where a standard page has its hole; bufmgr.c,
 * RelationCopyStorageUsingBuffer): there the pageserver may have fewer bits than PostgreSQL, never
 * more.
 */
import { dirname } from "node:path";
import { FORK_FSM, FORK_INIT, FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { isNewPage, PAGE_HEADER_SIZE, pageFlags, pageLsn } from "../../libs/postgres/page.ts";
import { formatRel, type RelTag } from "../../libs/postgres/relation.ts";
import { SlruKind, slruSegmentPath } from "../../libs/postgres/slru.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import type { PageReader } from "../../pageserver/page_service/page_reader.ts";
import { relmapKey } from "../../pageserver/repository/key.ts";
import type { ServedTimeline } from "../../pageserver/served_timeline.ts";
import { maskPage } from "../../pageserver/walredo/masking.ts";
import type { PageTarget } from "../../pageserver/walredo/types.ts";
import {
  clearSpgistCache,
  GIST_BUILD_LSN,
  gistSplitState,
  resourceManagerOf,
} from "../support/page_kinds.ts";
import { type LocalFork, readForks, readSlru } from "./cluster_files.ts";

const PD_ALL_VISIBLE = 4;

/** What was compared, and every difference found. */
interface Comparison {
  forks: number;
  pages: number;
  slruPages: number;
  readonly differences: string[];
  readonly databaseCopiedByWal: number;
}

/** Compares everything at `lsn` with the stopped cluster in `dataDir`. */
export function compareWithCluster(
  served: ServedTimeline,
  reader: PageReader,
  lsn: Lsn,
  dataDir: string,
  databaseCopiedByWal: number,
): Comparison {
  const comparison: Comparison = {
    forks: 0,
    pages: 0,
    slruPages: 0,
    differences: [],
    databaseCopiedByWal,
  };
  const local = readForks(dataDir);
  const unlogged = new Set(
    [...local.values()].filter(({ tag }) => tag.fork === FORK_INIT).map(({ tag }) => relation(tag)),
  );
  const isLogged = (tag: RelTag) =>
    tag.fork !== FORK_FSM && (tag.fork === FORK_INIT || !unlogged.has(relation(tag)));
  const ours = new Map<string, number>();
  served.relations.forEachRelation(lsn, (tag, blocks) => {
    if (!isLogged(tag)) return;
    ours.set(`${relation(tag)}/${tag.fork}`, blocks);
    if (!local.has(`${relation(tag)}/${tag.fork}`)) {
      comparison.differences.push(`${formatRel(tag)}: PostgreSQL does not have it`);
    }
  });
  for (const [key, fork] of local) {
    if (!isLogged(fork.tag)) continue;
    comparison.forks++;
    compareFork(served, reader, lsn, fork, ours.get(key), comparison);
  }
  compareSlrus(served, reader, lsn, dataDir, comparison);
  compareRelationMaps(served, lsn, dataDir, comparison);
  return comparison;
}

function relation(tag: RelTag): string {
  return `${tag.spc}/${tag.db}/${tag.rel}`;
}

function compareFork(
  served: ServedTimeline,
  reader: PageReader,
  lsn: Lsn,
  { tag, bytes }: LocalFork,
  blocks: number | undefined,
  comparison: Comparison,
): void {
  const { differences } = comparison;
  const localBlocks = bytes.length / PAGE_SIZE;
  const kept = blocks ?? 0;
  if (blocks === undefined && tag.fork !== FORK_VM) {
    differences.push(`${formatRel(tag)}: the pageserver does not have it`);
  }
  if (kept > localBlocks) {
    differences.push(`${formatRel(tag)}: ${kept} blocks, PostgreSQL has ${localBlocks}`);
  }
  // A map page that was made and got no bits has a header in the file, and no WAL.
  const headerBytes = tag.fork === FORK_VM ? PAGE_HEADER_SIZE : 0;
  const beyond = bytes.subarray(kept * PAGE_SIZE);
  if (beyond.some((byte, i) => byte !== 0 && i % PAGE_SIZE >= headerBytes)) {
    differences.push(`${formatRel(tag)}: ${kept} blocks, and PostgreSQL has data beyond`);
  }
  const object = served.relations.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
  const expected = new Uint8Array(PAGE_SIZE);
  for (let block = 0; block < Math.min(kept, localBlocks); block++) {
    comparison.pages++;
    expected.set(bytes.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE));
    let why: string | undefined;
    try {
      const page = reader.relationPage(served, tag, object, block, lsn);
      const actual = page.bytes.slice(page.offset, page.offset + PAGE_SIZE);
      why = tag.fork === FORK_VM && tag.db === comparison.databaseCopiedByWal
        ? surplusBits(actual, expected)
        : pageDifference(actual, expected, tag, block);
    } catch (thrown) {
      why = String(thrown);
    }
    if (why !== undefined) differences.push(`${formatRel(tag)} block ${block}: ${why}`);
  }
}

/**
 * Why two versions of a page are not the same, or undefined. Both are masked in place. With
 * `checksums` PostgreSQL logs hint bits, which moves pd_lsn and, where full_page_writes is off,
 * changes nothing else (XLogSaveBufferForHint): its page may have a later one.
 */
export function pageDifference(
  actual: Uint8Array<ArrayBuffer>,
  expected: Uint8Array<ArrayBuffer>,
  tag: RelTag,
  block: number,
  checksums = false,
): string | undefined {
  const views = [actual, expected].map((bytes) => new DataView(bytes.buffer)) as [
    DataView,
    DataView,
  ];
  const [a, e] = views;
  if (isNewPage(e, 0) || isNewPage(a, 0)) return byteDifference(actual, expected);
  const isLater = checksums && pageLsn(e, 0) > pageLsn(a, 0);
  const isSame = pageLsn(a, 0) === pageLsn(e, 0);
  if (!isSame && !isLater && !isWrittenBeforeLogged(tag, pageLsn(e, 0))) {
    return `pd_lsn ${formatLsn(pageLsn(a, 0))}, expected ${formatLsn(pageLsn(e, 0))}`;
  }
  if ((pageFlags(a, 0) & PD_ALL_VISIBLE) !== (pageFlags(e, 0) & PD_ALL_VISIBLE)) {
    return `flags ${pageFlags(a, 0)}, expected ${pageFlags(e, 0)}`;
  }
  const pages = [actual, expected].map((bytes, i) => ({ bytes, view: views[i]!, offset: 0 })) as [
    PageTarget,
    PageTarget,
  ];
  const rmid = resourceManagerOf(pages[1]);
  if (rmid === undefined) return byteDifference(actual, expected);
  if (rmid === Rmgr.GIST && gistSplitState(pages[0]) !== gistSplitState(pages[1])) {
    return `NSN and flag ${gistSplitState(pages[0])}, expected ${gistSplitState(pages[1])}`;
  }
  for (const page of pages) {
    if (rmid === Rmgr.SEQ) maskSequence(page.view);
    if (rmid === Rmgr.SPGIST && block === 0) clearSpgistCache(page);
    maskPage(page, rmid, tag.fork, block);
  }
  return byteDifference(actual, expected);
}

/**
 * Before 16 some pages of an index are written to the file first, under no LSN of their own, and
 * logged then: those of init forks (spgbuildempty), and of a sorted GiST build.
 */
function isWrittenBeforeLogged({ fork }: RelTag, lsn: Lsn): boolean {
  return lsn === GIST_BUILD_LSN || fork === FORK_INIT && lsn === 0;
}

/** Where a map page has bits that the other does not have, or undefined. */
export function surplusBits(actual: Uint8Array, expected: Uint8Array): string | undefined {
  const at = actual.findIndex((byte, i) => i >= PAGE_HEADER_SIZE && (byte & ~expected[i]!) !== 0);
  return at < 0 ? undefined : `byte ${at}: bits that PostgreSQL does not have`;
}

/** Hides last_value, log_cnt and is_called, all the data of a sequence's one tuple. */
function maskSequence(view: DataView): void {
  const tuple = view.getUint32(PAGE_HEADER_SIZE, true) & 0x7fff;
  const data = tuple + view.getUint8(tuple + 22); // t_hoff
  for (let i = 0; i < 17; i++) view.setUint8(data + i, 0);
}

function byteDifference(actual: Uint8Array, expected: Uint8Array): string | undefined {
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  if (at < 0) return undefined;
  const show = (bytes: Uint8Array) =>
    [...bytes.subarray(at, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return `byte ${at}: ${show(actual)}, expected ${show(expected)}`;
}

function compareSlrus(
  served: ServedTimeline,
  reader: PageReader,
  lsn: Lsn,
  dataDir: string,
  comparison: Comparison,
): void {
  for (const kind of Object.values(SlruKind)) {
    const directory = dirname(slruSegmentPath(kind, 0));
    const local = readSlru(dataDir, directory);
    const ours = new Map(
      served.relations.slruSegments(kind, lsn).map(({ segment, blocks }) => [segment, blocks]),
    );
    for (const segment of new Set([...local.keys(), ...ours.keys()])) {
      const expected = local.get(segment);
      const blocks = ours.get(segment) ?? 0;
      const name = `${directory}/${segment.toString(16)}`;
      if (expected === undefined) {
        comparison.differences.push(`${name}: PostgreSQL does not have it`);
        continue;
      }
      if (expected.subarray(blocks * PAGE_SIZE).some((byte) => byte !== 0)) {
        comparison.differences.push(`${name}: ${blocks} blocks, and PostgreSQL has data beyond`);
      }
      for (let block = 0; block < Math.min(blocks, expected.length / PAGE_SIZE); block++) {
        comparison.slruPages++;
        const page = reader.slruPage(served, kind, segment, block, lsn);
        const why = byteDifference(
          page.bytes.subarray(page.offset, page.offset + PAGE_SIZE),
          expected.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE),
        );
        if (why !== undefined) comparison.differences.push(`${name} block ${block}: ${why}`);
      }
    }
  }
}

function compareRelationMaps(
  served: ServedTimeline,
  lsn: Lsn,
  dataDir: string,
  { differences }: Comparison,
): void {
  const maps = served.relations.databases(lsn).map(({ spc, db }) => ({
    spc,
    db,
    path: `base/${db}`,
  }));
  for (const { spc, db, path } of [...maps, { spc: 1664, db: 0, path: "global" }]) {
    const ours = served.timeline.getValue(relmapKey(spc, db), lsn);
    const expected = Deno.readFileSync(`${dataDir}/${path}/pg_filenode.map`);
    const why = ours === undefined ? "it is missing" : byteDifference(ours, expected);
    if (why !== undefined) differences.push(`${path}/pg_filenode.map: ${why}`);
  }
  const local = [...Deno.readDirSync(`${dataDir}/base`)].map(({ name }) => name).sort();
  const databases = maps.map(({ db }) => String(db)).sort();
  if (local.join() !== databases.join()) {
    differences.push(`databases ${databases.join()}, PostgreSQL has ${local.join()}`);
  }
}
