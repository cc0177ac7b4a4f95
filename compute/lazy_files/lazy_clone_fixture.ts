/**
 * For tests: a lazy clone of a cleanly stopped data directory. Everything but the relation files is
 * copied, those are laid out empty.
 */
import { join } from "node:path";
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { LazyFilesMap, LazyFork } from "../../libs/basebackup/lazy_files_map.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { parseRelationPath } from "../../libs/postgres/relation.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { type Lsn, toLsn } from "../../libs/utils/lsn.ts";
import { type ArenaStatistics, readArenaStatistics } from "./arena.ts";
import { NATIVE, prebuiltLibrary } from "./build.ts";
import { Cluster } from "./cluster_fixture.ts";
import { type LaidOut, layOutFiles, type LayOutOptions } from "./lay_out.ts";

/** The id of this boot of the machine. */
export function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

/** Relative paths of all files and directories under `root`. */
function* walk(root: string, directory = ""): Generator<{ path: string; isDirectory: boolean }> {
  for (const { name, isDirectory } of Deno.readDirSync(join(root, directory))) {
    const path = directory === "" ? name : `${directory}/${name}`;
    yield { path, isDirectory };
    if (isDirectory) yield* walk(root, path);
  }
}

/** The map of a stopped data directory. */
function scanRelationFiles(pgdata: string, lsn: Lsn): LazyFilesMap {
  const forks = new Map<string, LazyFork>();
  for (const { path, isDirectory } of walk(pgdata)) {
    const parsed = isDirectory ? undefined : parseRelationPath(path);
    if (parsed === undefined) continue;
    const { tag, segment } = parsed;
    const key = JSON.stringify(tag);
    const pages = Deno.statSync(join(pgdata, path)).size / PAGE_SIZE;
    const blocks = segment * RELATION_SEGMENT_PAGES + pages;
    forks.set(key, { ...tag, blocks: Math.max(blocks, forks.get(key)?.blocks ?? 0) });
  }
  return { lsn, prevLsn: lsn, pgMajor: 17, forks: [...forks.values()] };
}

/** One clone. */
export class LazyClone extends Cluster {
  readonly arenaPath: string;
  readonly laidOut: LaidOut;
  readonly #library: string;

  /** Lays a clone of the stopped cluster `source` out under a new temporary directory. */
  constructor(
    source: Cluster,
    pageserver: LayOutOptions["pageserver"],
    options: Partial<LayOutOptions> = {},
  ) {
    super(source.binDir);
    this.arenaPath = join(this.directory, "arena");
    this.#library = join(this.directory, "library.so");
    this.#copyOtherFiles(source.pgdata);
    this.laidOut = layOutFiles({
      pgdata: this.pgdata,
      arenaPath: this.arenaPath,
      map: scanRelationFiles(source.pgdata, toLsn(0x1000028)),
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pageserver,
      bootId: bootId(),
      ...(this.owner === undefined ? {} : { owner: this.owner }),
      ...options,
    });
    // A copy: Postgres's user may not be able to read the source tree.
    Deno.copyFileSync(prebuiltLibrary(NATIVE), this.#library);
    Deno.chmodSync(this.#library, 0o755);
  }

  #copyOtherFiles(source: string): void {
    Deno.mkdirSync(this.pgdata, { mode: 0o700 });
    this.give(this.pgdata);
    for (const { path, isDirectory } of walk(source)) {
      const to = join(this.pgdata, path);
      if (isDirectory) Deno.mkdirSync(to, { mode: 0o700 });
      else if (parseRelationPath(path) !== undefined) continue;
      else if (path.endsWith("pg_internal.init") || path === "postmaster.opts") continue;
      else Deno.copyFileSync(join(source, path), to);
      this.give(to);
    }
  }

  protected override lazyArguments(): { options: string[]; arena: string } {
    return { options: ["--library", this.#library], arena: this.arenaPath };
  }

  get statistics(): ArenaStatistics {
    return readArenaStatistics(this.arenaPath);
  }
}

const ALL_RELATIONS = `SELECT c.oid::regclass::text FROM pg_class c
  WHERE relkind IN ('r', 'm', 'S') AND relpersistence <> 't' ORDER BY c.oid`;

/**
 * A hash of the rows of each relation of a database, catalogs and sequences included, with what is
 * in TOAST tables: reads every page and every value, and does not depend on physical order.
 */
export async function hashContents(session: PgClient): Promise<Map<string, string>> {
  const hashes = new Map<string, string>();
  for (const [name] of (await session.query(ALL_RELATIONS)).rows) {
    const { rows } = await session.query(
      `SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0)
       FROM (TABLE ${name}) t`,
    );
    hashes.set(name!, rows[0]![0]!);
  }
  return hashes;
}

/** Moves money between accounts in `sessions` sessions until each did `transactions`. */
export async function runTransfers(
  connect: () => Promise<PgClient>,
  sessions: number,
  transactions: number,
  accounts: number,
): Promise<void> {
  await Promise.all(Array.from({ length: sessions }, async (_, number) => {
    const session = await connect();
    try {
      for (let i = 0; i < transactions; i++) {
        const account = 1 + (i * 7919 + number * 104729) % accounts;
        const delta = 1 + (i * 31 + number) % 500;
        await session.query(
          `BEGIN; UPDATE accounts SET balance = balance + ${delta} WHERE id = ${account};
           UPDATE branches SET balance = balance + ${delta} WHERE id = ${1 + account % 8};
           INSERT INTO history VALUES (${account}, ${delta}); COMMIT`,
        );
      }
    } finally {
      session.close();
    }
  }));
}
