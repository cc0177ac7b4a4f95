/**
 * The files of a stopped PostgreSQL cluster, as the oracle of ingest reads them: relation forks
 * with their pages, SLRU segments, relation maps, WAL from an LSN on, and the whole directory as a
 * tar.
 */
import { join } from "node:path";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { parseRelationPath, type RelTag } from "../../libs/postgres/relation.ts";
import { segmentName, segmentNumber } from "../../libs/postgres/wal/segment.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { StockPostgres } from "../redo_judge/stock_postgres.ts";

/** One fork as PostgreSQL has it, all its segment files read into one buffer. */
export interface LocalFork {
  readonly tag: RelTag;
  readonly bytes: Uint8Array;
}

/** "spc/db/rel/fork" of every fork with pages or an empty file. */
export function readForks(dataDir: string): Map<string, LocalFork> {
  const segments = new Map<string, { tag: RelTag; parts: Map<number, string> }>();
  const databases = [...Deno.readDirSync(join(dataDir, "base"))].map(({ name }) => `base/${name}`);
  for (const directory of ["global", ...databases]) {
    for (const { name } of Deno.readDirSync(join(dataDir, directory))) {
      const parsed = parseRelationPath(`${directory}/${name}`);
      if (parsed === undefined) continue;
      const { tag, segment } = parsed;
      const key = `${tag.spc}/${tag.db}/${tag.rel}/${tag.fork}`;
      const fork = segments.get(key) ?? { tag, parts: new Map() };
      fork.parts.set(segment, join(dataDir, directory, name));
      segments.set(key, fork);
    }
  }
  const forks = new Map<string, LocalFork>();
  for (const [key, { tag, parts }] of segments) {
    const last = Math.max(...parts.keys());
    const tail = Deno.readFileSync(parts.get(last)!);
    const bytes = new Uint8Array(last * RELATION_SEGMENT_PAGES * PAGE_SIZE + tail.length);
    for (const [segment, path] of parts) {
      bytes.set(Deno.readFileSync(path), segment * RELATION_SEGMENT_PAGES * PAGE_SIZE);
    }
    forks.set(key, { tag, bytes });
  }
  return forks;
}

/** Segment files of an SLRU directory by number. */
export function readSlru(dataDir: string, directory: string): Map<number, Uint8Array> {
  const path = join(dataDir, directory);
  return new Map(
    [...Deno.readDirSync(path)].filter(({ isFile }) => isFile).map(({ name }) => [
      parseInt(name, 16),
      Deno.readFileSync(join(path, name)),
    ]),
  );
}

/** The WAL in [start, end), in chunks of at most `chunkBytes`. */
export function* readWal(
  dataDir: string,
  start: Lsn,
  end: Lsn,
  segmentSize: number,
  chunkBytes: number,
): Generator<Uint8Array> {
  for (let number = segmentNumber(start, segmentSize); number * segmentSize < end; number++) {
    const first = number * segmentSize;
    const path = join(dataDir, "pg_wal", segmentName(1, number, segmentSize));
    const segment = Deno.readFileSync(path).subarray(0, end - first);
    for (let at = Math.max(start - first, 0); at < segment.length;) {
      const part = segment.subarray(at, at + chunkBytes);
      yield part;
      at += part.length;
    }
  }
}

/** The data directory as a tar, as `tar` writes it. */
export async function* tarOf(dataDir: string): AsyncGenerator<Uint8Array> {
  const tar = new Deno.Command("tar", {
    args: ["-C", dataDir, "-c", "."],
    stdout: "piped",
  }).spawn();
  yield* tar.stdout;
  await tar.status;
}

/** A session in a database of a running server. */
export function connectTo(server: StockPostgres, database: string): Promise<PgClient> {
  const unixPath = join(server.directory, ".s.PGSQL.5432");
  return PgClient.connect({ unixPath }, { user: "postgres", database });
}

/**
 * What a running server holds: for every relation with logged rows in every database a hash of its
 * rows in the order in which they lie.
 */
export async function fingerprint(server: StockPostgres): Promise<string[]> {
  const lines: string[] = [];
  for (const database of ["postgres", "template1", "copied_files", "copied_wal"]) {
    const client = await connectTo(server, database);
    const { rows } = await client.query(
      `SELECT c.oid::regclass::text FROM pg_class c
       WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
         AND c.oid NOT IN ('pg_statistic'::regclass, 'pg_toast.pg_toast_2619'::regclass)
       ORDER BY 1`,
    );
    for (const [name] of rows) {
      const hashed = await client.query(
        `SELECT count(*), md5(string_agg(x::text, '|')) FROM (SELECT * FROM ${name}) x`,
      );
      lines.push(`${database} ${name} ${hashed.rows[0]!.join(" ")}`);
    }
    client.close();
  }
  return lines;
}

/** Puts the content of a tar in place of a stopped server's data directory. */
export function replaceData(server: StockPostgres, tarPath: string): void {
  const { uid, gid } = Deno.statSync(server.dataDir);
  Deno.removeSync(server.dataDir, { recursive: true });
  Deno.mkdirSync(server.dataDir, { mode: 0o700 });
  const run = (program: string, args: string[]) => {
    const { success } = new Deno.Command(program, { args }).outputSync();
    if (!success) throw new Error(`${program} ${args.join(" ")} failed`);
  };
  run("tar", ["-C", server.dataDir, "-xf", tarPath]);
  if (Deno.uid() === 0) run("chown", ["-R", `${uid}:${gid}`, server.dataDir]);
}
