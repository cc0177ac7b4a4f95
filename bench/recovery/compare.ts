/**
 * Whether a replay left the pages that PostgreSQL's recovery left: every page that it changed, and
 * that it did change every page that is not as it was in the base.
 */
import { join } from "node:path";
import { FORK_FSM, PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { formatRel, parseRelationPath } from "../../libs/postgres/relation.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { comparePages } from "../../tests/redo_judge/file_comparison.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { PageStore } from "./page_store.ts";

/** What the comparison found. */
export interface PagesCompared {
  /** Pages that both changed, by kind. */
  readonly changed: Record<string, number>;
  /** Pages that neither changed. */
  readonly unchanged: number;
  readonly differences: readonly string[];
}

/** Compares a replay over `baseDir` with the recovered server's files. */
export function compareWithRecovered(
  store: PageStore,
  baseDir: string,
  recoveredDir: string,
  version: PgVersion,
): PagesCompared {
  const { compared, differences } = comparePages(
    { dataDir: recoveredDir, version, checksums: false },
    store.pages(),
  );
  let unchanged = 0;
  for (const path of relationFiles(recoveredDir)) {
    const { tag, segment } = parseRelationPath(path)!;
    if (tag.fork === FORK_FSM) continue; // recovery keeps a free space map, WAL has none
    const object = store.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
    const theirs = Deno.readFileSync(join(recoveredDir, path));
    const before = ifThere(() => Deno.readFileSync(join(baseDir, path))) ?? new Uint8Array(0);
    for (let at = 0; at < theirs.length; at += PAGE_SIZE) {
      const block = segment * RELATION_SEGMENT_PAGES + at / PAGE_SIZE;
      if (store.find(object, block) !== 0) continue;
      unchanged++;
      if (!samePage(theirs, before, at)) {
        differences.push(`${formatRel(tag)} block ${block}: changed by PostgreSQL only`);
      }
    }
  }
  return { changed: Object.fromEntries(compared), unchanged, differences };
}

/** Whether a page is as it was; a new one at the end of a file may be all zeros. */
function samePage(now: Uint8Array, before: Uint8Array, at: number): boolean {
  for (let i = at; i < at + PAGE_SIZE; i++) if (now[i] !== (before[i] ?? 0)) return false;
  return true;
}

function relationFiles(directory: string): string[] {
  const databases = [...Deno.readDirSync(join(directory, "base"))].map(({ name }) =>
    `base/${name}`
  );
  return ["global", ...databases]
    .flatMap((path) =>
      [...Deno.readDirSync(join(directory, path))].map(({ name }) => `${path}/${name}`)
    )
    .filter((path) => parseRelationPath(path) !== undefined);
}
