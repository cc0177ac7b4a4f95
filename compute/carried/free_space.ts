/**
 * Free space maps, of which stock PostgreSQL logs next to nothing: the pages that changed since the
 * endpoint started, as the page images (XLOG_FPI) by which PostgreSQL logs new pages. They need
 * nothing of who reads the WAL: the storage keeps them as pages of the map's fork, which goes with
 * its relation when that is truncated or dropped, and a replica has them, too.
 *
 * A map may name blocks behind the end that its relation has in the storage, because PostgreSQL
 * extends relations without WAL. All releases that are let start look before they use such a block
 * (fsm_does_block_exist in freespace.c, since 14.12, 15.7 and 16.3).
 *
 * Read only when Postgres has ended in an orderly way.
 */
import { setImmediate } from "node:timers/promises";
import {
  DEFAULT_TABLESPACE,
  FORK_FSM,
  GLOBAL_TABLESPACE,
  PAGE_SIZE,
  RELATION_SEGMENT_PAGES,
  Rmgr,
  XlogInfo,
} from "../../libs/postgres/constants.ts";
import { parseRelationPath, type RelTag } from "../../libs/postgres/relation.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { pglzCompress } from "../../libs/postgres/wal/pglz_compress.ts";
import type { BlockReference, RecordParts } from "../../libs/postgres/wal/record_builder.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { logger } from "../../libs/utils/log.ts";
import {
  arenaFileKey,
  type ArenaFilePages,
  arenaFilesOfFork,
  WORD_WRITTEN,
} from "../lazy_files/arena.ts";

const log = logger("compute", "carried");

/** Most bytes of page images that one stop carries; the maps with most changed pages go without. */
const IMAGE_BYTES_MAX = 16 * 1024 * 1024;
/** Pages in one record, and between two turns of the event loop. */
const PAGES_PER_RECORD = 16;

/** Modification time of a map as it was fetched, where no arena tells what was written since. */
const AS_FETCHED_MS = 0;

/** Maps of which the arena knows what was written; undefined where there is none. */
type KnownMaps = ReadonlyMap<string, ArenaFilePages> | undefined;

/** Pages of one segment file of a map that are to be carried, in order. */
interface ChangedPages {
  readonly path: string;
  readonly tag: RelTag;
  readonly segment: number;
  readonly pages: readonly number[];
}

/** A record without its link to the one before. */
export type UnlinkedRecord = Omit<RecordParts, "previous">;

/**
 * Remembers that the maps among these files of a data directory, all of which were fetched before
 * Postgres starts, are as the storage has them.
 */
export function markMaps(pgdata: string, paths: readonly string[]): void {
  for (const path of paths) {
    if (!path.includes("_fsm")) continue;
    Deno.utimeSync(`${pgdata}/${path}`, AS_FETCHED_MS / 1000, AS_FETCHED_MS / 1000);
  }
}

/** The records that carry the maps' changed pages. */
export async function* freeSpaceRecords(
  pgdata: string,
  arenaPath: string | undefined,
  version: PgVersion,
): AsyncGenerator<UnlinkedRecord> {
  const known = arenaPath === undefined ? undefined : arenaFilesOfFork(arenaPath, FORK_FSM);
  const changed = changedMaps(pgdata, known);
  changed.sort((a, b) => a.pages.length - b.pages.length);
  let left = IMAGE_BYTES_MAX;
  for (const [index, map] of changed.entries()) {
    for (let at = 0; at < map.pages.length && left > 0; at += PAGES_PER_RECORD) {
      await setImmediate();
      const blocks = readBlocks(map, map.pages.slice(at, at + PAGES_PER_RECORD), version);
      for (const { image } of blocks) left -= image!.bytes.length;
      if (blocks.length > 0) yield { rmid: Rmgr.XLOG, info: XlogInfo.FPI, blocks };
    }
    if (left > 0) continue;
    log.warning("{count} free space maps are not kept, from {path} on: more than {limit} bytes", {
      count: changed.length - index,
      path: map.path,
      limit: IMAGE_BYTES_MAX,
    });
    return;
  }
}

/** All maps of permanent relations that have pages which the storage has not. */
function changedMaps(pgdata: string, known: KnownMaps): ChangedPages[] {
  const found: ChangedPages[] = [];
  const directories = [...Deno.readDirSync(`${pgdata}/base`)].map(({ name }) => `base/${name}`);
  for (const directory of ["global", ...directories]) {
    const entries = ifThere(() => [...Deno.readDirSync(`${pgdata}/${directory}`)]) ?? [];
    const names = new Set(entries.map(({ name }) => name));
    for (const name of names) {
      if (!name.includes("_fsm")) continue;
      const relation = parseRelationPath(`${directory}/${name}`);
      if (relation === undefined || names.has(`${relation.tag.rel}_init`)) continue;
      const path = `${pgdata}/${directory}/${name}`;
      const map = changedPages(path, relation, known);
      if (map.pages.length > 0) found.push(map);
    }
  }
  return found;
}

function changedPages(
  path: string,
  { tag, segment }: { tag: RelTag; segment: number },
  known: KnownMaps,
): ChangedPages {
  const { spc, db, rel } = tag;
  if (spc !== DEFAULT_TABLESPACE && spc !== GLOBAL_TABLESPACE) {
    return { path, tag, segment, pages: [] };
  }
  const { size, mtime } = Deno.statSync(path);
  const isAsFetched = known === undefined && mtime?.getTime() === AS_FETCHED_MS;
  const file = known?.get(arenaFileKey(spc, db, rel, segment));
  const pages: number[] = [];
  file?.words.forEach((word, page) => word === WORD_WRITTEN && pages.push(page));
  const count = isAsFetched ? 0 : Math.floor(size / PAGE_SIZE);
  for (let page = file?.base ?? 0; page < count; page++) pages.push(page);
  return { path, tag, segment, pages };
}

/** Images of pages; those that were never used are left out. */
function readBlocks(
  { path, tag, segment }: ChangedPages,
  pages: readonly number[],
  version: PgVersion,
): BlockReference[] {
  using file = Deno.openSync(path);
  const blocks: BlockReference[] = [];
  for (const page of pages) {
    const bytes = new Uint8Array(PAGE_SIZE);
    file.seekSync(page * PAGE_SIZE, Deno.SeekMode.Start);
    for (let at = 0, count: number | null = 0; at < PAGE_SIZE; at += count) {
      count = file.readSync(bytes.subarray(at));
      if (count === null) break;
    }
    if (bytes.every((byte) => byte === 0)) continue;
    const compressed = pglzCompress(bytes);
    const info = version.imageApply | (compressed === undefined ? 0 : version.imagePglz);
    blocks.push({
      id: blocks.length,
      tag,
      block: segment * RELATION_SEGMENT_PAGES + page,
      image: { info, bytes: compressed ?? bytes, holeOffset: 0 },
    });
  }
  return blocks;
}
