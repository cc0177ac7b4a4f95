/** Parsers of what `neon wal` and `neon page` take on the command line; bad values exit with 2. */
import { InvalidArgumentError } from "./command.ts";
import { parseRmgrName, rmgrNames } from "../libs/postgres/rmgr_names.ts";
import { parseForkName } from "../libs/postgres/wal/record_text.ts";
import { parseSegmentName, segmentStart } from "../libs/postgres/wal/segment.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";

/** The last block that a relation can have (PostgreSQL 17, storage/block.h: MaxBlockNumber). */
export const BLOCK_MAX = 0xfffffffe;
const OID_MAX = 0xffffffff;

const RELATION = /^(\d+)\/(\d+)\/(\d+)(?:_(main|fsm|vm|init))?$/;

/** A relation as pg_waldump takes it, with an optional fork: "1663/5/16384" or "1663/5/16384_vm". */
export interface RelationArgument {
  readonly spc: number;
  readonly db: number;
  readonly rel: number;
  readonly fork: number | undefined;
}

/** Reads spc/db/rel[_fork]; undefined for another text. */
export function parseRelation(text: string): RelationArgument | undefined {
  const match = RELATION.exec(text);
  if (match === null) return undefined;
  const fork = match[4] === undefined ? undefined : parseForkName(match[4]);
  const [spc, db, rel] = match.slice(1, 4).map(Number) as [number, number, number];
  if (Math.max(spc, db, rel) <= OID_MAX) return { spc, db, rel, fork };
  throw new InvalidArgumentError(`expected numbers up to ${OID_MAX}: current value is "${text}"`);
}

/** A relation option. */
export function relation(text: string): RelationArgument {
  const parsed = parseRelation(text);
  if (parsed !== undefined) return parsed;
  throw new InvalidArgumentError("expected tablespace/database/relfilenode[_fork]");
}

/** A fork's name. */
export function fork(text: string): number {
  const parsed = parseForkName(text);
  if (parsed !== undefined) return parsed;
  throw new InvalidArgumentError("expected main, fsm, vm or init");
}

/** Resource managers, an option that may be repeated. */
export function rmgrs(text: string, before: Set<number> | undefined): Set<number> {
  const id = parseRmgrName(text);
  if (id === undefined) throw new InvalidArgumentError(`expected one of ${rmgrNames().join(", ")}`);
  return new Set([...before ?? [], id]);
}

/** A position: an LSN, or the name of a segment for its start (its end, where a range ends). */
export function walPosition(text: string, segmentSize: number, isEnd: boolean): Lsn {
  const named = parseSegmentName(text, segmentSize);
  if (named !== undefined) return segmentStart(named.segment + (isEnd ? 1 : 0), segmentSize);
  try {
    return parseLsn(text);
  } catch {
    throw new InvalidArgumentError(
      `expected an LSN such as 0/16B5A50 or the name of a segment: current value is "${text}"`,
    );
  }
}
