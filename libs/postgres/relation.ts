/**
 * Names of relation forks and of the files that hold them.
 *
 *   base/<db>/<rel>[_fsm|_vm|_init][.<segment>]                          pg_default
 *   global/<rel>...                                                      pg_global
 *   pg_tblspc/<spc>/<PG_17_202406281>/<db>/<rel>...                      another tablespace
 *
 * for example `base/5/1259_fsm` or `base/5/16385.1`. Temporary relations (`t3_16390`) are not ours.
 */
import { BadRequest } from "../utils/errors.ts";
import { DEFAULT_TABLESPACE, GLOBAL_TABLESPACE } from "./constants.ts";
import type { PgVersion } from "./versions.ts";

/** One fork of one relation. `rel` is the relfilenode; `fork` 0 main, 1 fsm, 2 vm, 3 init. */
export interface RelTag {
  spc: number;
  db: number;
  rel: number;
  fork: number;
}

const FORK_SUFFIX = ["", "_fsm", "_vm", "_init"] as const;

function forkSuffix(fork: number): string {
  const suffix = FORK_SUFFIX[fork];
  if (suffix === undefined) {
    throw new BadRequest(`Cannot name a relation fork: current value is ${fork}`);
  }
  return suffix;
}

/**
 * Path of the fork's first file, relative to the data directory. A tablespace other than pg_default
 * and pg_global needs `version` for its directory; without it throws BadRequest.
 */
export function relationPath(tag: RelTag, version?: PgVersion): string {
  const file = `${tag.rel}${forkSuffix(tag.fork)}`;
  if (tag.spc === DEFAULT_TABLESPACE) return `base/${tag.db}/${file}`;
  if (tag.spc === GLOBAL_TABLESPACE) return `global/${file}`;
  if (version === undefined) {
    throw new BadRequest(`Cannot name the file of ${formatRel(tag)}: it is in a tablespace`);
  }
  return `pg_tblspc/${tag.spc}/${version.catalogDirectory}/${tag.db}/${file}`;
}

/** Path of the file with the fork's pages from `segment * RELATION_SEGMENT_PAGES`. */
export function relationSegmentPath(tag: RelTag, segment: number, version?: PgVersion): string {
  const path = relationPath(tag, version);
  return segment === 0 ? path : `${path}.${segment}`;
}

const RELATION_PATH =
  /^(?:(global)|base\/(\d+)|pg_tblspc\/(\d+)\/PG_[^/]+\/(\d+))\/(\d+)(_fsm|_vm|_init)?(?:\.(\d+))?$/;

/** The inverse of relationSegmentPath; undefined for a path that is not a relation's file. */
export function parseRelationPath(path: string): { tag: RelTag; segment: number } | undefined {
  const match = RELATION_PATH.exec(path);
  if (match === null) return undefined;
  const [, global, baseDb, spc, spcDb, rel, suffix, segment] = match;
  const tag = {
    spc: global !== undefined ? GLOBAL_TABLESPACE : Number(spc ?? DEFAULT_TABLESPACE),
    db: Number(baseDb ?? spcDb ?? 0),
    rel: Number(rel),
    fork: FORK_SUFFIX.indexOf((suffix ?? "") as typeof FORK_SUFFIX[number]),
  };
  return { tag, segment: Number(segment ?? 0) };
}

/** For messages: tablespace/database/relation and fork, for example `1663/5/1259_vm`. */
export function formatRel(tag: RelTag): string {
  return `${tag.spc}/${tag.db}/${tag.rel}${FORK_SUFFIX[tag.fork] ?? `_fork${tag.fork}`}`;
}
