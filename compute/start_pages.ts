/**
 * The pages that a start of Postgres reads, some of its system catalogs, in its files before it
 * runs. It would fetch them one after the other, each when it comes to it, and forty such round
 * trips are a good part of a start.
 *
 * Which pages these are depends on the tenant's history, and hardly differs between its branches:
 * the host remembers what the last start has fetched, and asks for that in one batch as soon as it
 * knows the LSN. No start fails for them, nor waits long: what has not come is fetched when it is
 * read.
 */
import type { PgClient } from "../libs/pgwire/client.ts";
import type { CopyBoth } from "../libs/pgwire/copy_both.ts";
import type { LazyFilesMap } from "../libs/basebackup/lazy_files_map.ts";
import { FORK_MAIN, PAGE_SIZE } from "../libs/postgres/constants.ts";
import { relationPath } from "../libs/postgres/relation.ts";
import { writeAll } from "../libs/utils/durable.ts";
import { messageOf } from "../libs/utils/errors.ts";
import type { TenantId } from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { connectPageserver } from "./basebackup.ts";
import type { EndpointSpec } from "./client.ts";
import { PageStream } from "./eager_files/page_stream.ts";
import {
  type ArenaFile,
  type ArenaRun,
  markFetched,
  presentRuns,
  readArenaStatistics,
} from "./lazy_files/arena.ts";

const log = logger("compute", "start_pages");

/** The first object id that is not a catalog's (access/transam.h, FirstNormalObjectId). */
const FIRST_USER_RELATION = 16_384;
/** Catalogs with more pages are not looked at: databases have hundreds of relations, then. */
const CATALOG_PAGES_MAX = 1024;
/** Together, per tenant: several times of what starts have been seen to read. */
const PAGES_MAX = 512;
const TENANTS_MAX = 64;
/** A start that fetched more often has read something else than the one before. */
const FETCH_CALLS_MAX = 8;
/** Longest wait for them, once everything else is there. */
const WAIT_MS_MAX = 500;

function isCatalog({ rel, fork, segment, pages }: ArenaFile): boolean {
  return rel < FIRST_USER_RELATION && fork === FORK_MAIN && segment === 0 &&
    pages <= CATALOG_PAGES_MAX;
}

function keyOf({ spc, db, rel }: Pick<ArenaFile, "spc" | "db" | "rel">): string {
  return `${spc}/${db}/${rel}`;
}

/** Consecutive pages that have arrived. */
interface StartRun {
  readonly file: ArenaFile;
  readonly first: number;
  readonly bytes: Uint8Array;
}

/** What starts on this host have read. */
export class StartPages {
  /** The newest last. */
  readonly #known = new Map<TenantId, { pgVersion: number; runs: readonly ArenaRun[] }>();

  /** Remembers what the Postgres of this arena has read so far, if it was not known. */
  learn({ tenant_id: tenant, pg_version: pgVersion }: EndpointSpec, arena: string): void {
    if (readArenaStatistics(arena).fetchCalls <= FETCH_CALLS_MAX) return;
    const runs = presentRuns(arena, isCatalog);
    this.#known.delete(tenant);
    // What has gathered from many starts is forgotten as a whole: the next one says what is needed
    if (runs.reduce((sum, { pages }) => sum + pages, 0) > PAGES_MAX) return;
    this.#known.set(tenant, { pgVersion, runs });
    if (this.#known.size > TENANTS_MAX) this.#known.delete(this.#known.keys().next().value!);
  }

  /** The pages for a start of an endpoint like this: its tenant's, or another one's. */
  begin(spec: EndpointSpec): StartPageFetch {
    const known = this.#known.get(spec.tenant_id) ??
      [...this.#known.values()].findLast(({ pgVersion }) => pgVersion === spec.pg_version);
    return new StartPageFetch(spec, spec.eager === true ? [] : known?.runs ?? []);
  }
}

/** The pages of one start. */
export class StartPageFetch {
  readonly #spec: EndpointSpec;
  readonly #runs: readonly ArenaRun[];
  readonly #connecting: Promise<PgClient> | undefined;
  /** Opened before the LSN is known. */
  readonly #opening: Promise<CopyBoth> | undefined;
  readonly #arrived: StartRun[] = [];
  #ended: Promise<void> = Promise.resolve();
  #isOver = false;

  /** Connects to the page service if there is something to fetch. */
  constructor(spec: EndpointSpec, runs: readonly ArenaRun[]) {
    this.#spec = spec;
    this.#runs = runs;
    this.#connecting = runs.length === 0 ? undefined : connectPageserver(spec);
    const { tenant_id: tenant, timeline_id: timeline } = spec;
    this.#opening = this.#connecting
      ?.then((client) => client.copyBoth(`pagestream_v3 ${tenant} ${timeline}`));
    this.#opening?.catch(() => {}); // told by fetch()
  }

  /** Asks for all of them as of the start. */
  fetch(lsn: Lsn): void {
    if (this.#opening === undefined) return;
    this.#ended = this.#fetch(this.#opening, lsn).catch((thrown) => {
      if (this.#isOver) return;
      log.info("{endpoint} fetches its pages itself: {why}", {
        endpoint: this.#spec.endpoint_id,
        why: messageOf(thrown),
      });
    });
  }

  async #fetch(opening: Promise<CopyBoth>, lsn: Lsn): Promise<void> {
    const stream = new PageStream(await opening, lsn);
    for (const { file, first, pages } of this.#runs) {
      stream.ask({ tag: file, firstBlock: first, pages });
    }
    await stream.flush();
    for (const { file, first, pages } of this.#runs) {
      const bytes = new Uint8Array(pages * PAGE_SIZE);
      let from = 0;
      const arrived = (to: number) => {
        if (to === from) return;
        const range = bytes.subarray(from * PAGE_SIZE, to * PAGE_SIZE);
        this.#arrived.push({ file, first: first + from, bytes: range });
      };
      for (let i = 0; i < pages; i++) {
        const page = { tag: file, firstBlock: first + i, pages: 1 };
        const isThere = await stream.takeOne(page, bytes.subarray(i * PAGE_SIZE));
        if (this.#isOver) return;
        if (isThere) continue;
        arrived(i);
        from = i + 1;
      }
      arrived(pages);
    }
  }

  /** Writes what has arrived into the files of `pgdata`. Postgres does not run yet. */
  async place({ forks }: LazyFilesMap, pgdata: string, arena: string): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, WAIT_MS_MAX);
    await Promise.race([this.#ended, late.promise]);
    clearTimeout(timer);
    this.close();
    if (this.#arrived.length === 0) return;
    const blocks = new Map<string, number>();
    for (const fork of forks) {
      if (fork.rel < FIRST_USER_RELATION && fork.fork === FORK_MAIN) {
        blocks.set(keyOf(fork), fork.blocks);
      }
    }
    const runs = this.#arrived.flatMap(({ file, first, bytes }) => {
      const pages = Math.min(bytes.length / PAGE_SIZE, (blocks.get(keyOf(file)) ?? 0) - first);
      return pages <= 0
        ? []
        : [{ file, first, pages, bytes: bytes.subarray(0, pages * PAGE_SIZE) }];
    });
    for (const [file, ofFile] of Map.groupBy(runs, ({ file }) => file)) {
      using data = Deno.openSync(`${pgdata}/${relationPath(file)}`, { write: true });
      for (const { first, bytes } of ofFile) {
        data.seekSync(first * PAGE_SIZE, Deno.SeekMode.Start);
        writeAll(data, bytes);
      }
    }
    markFetched(arena, runs);
  }

  /** Ends the fetch. */
  close(): void {
    this.#isOver = true;
    this.#connecting?.then((client) => client.close(), () => {});
  }
}
