/**
 * Fetches every page of a data directory before Postgres starts, for endpoints that cannot fetch on
 * first read: several connections to the page service, each with a window of requests under way,
 * take runs of at most a mebibyte off one list and write them to the files.
 *
 * Memory is bounded by the connections, whatever the size of the database: one run each, and what
 * their sockets hold. A connection that is lost or silent is made again, and asks again for what it
 * had not received; only when nothing at all has arrived for RETRY_MS_MAX does the fetch fail. A
 * page that the page service cannot give, or a file that cannot be written, ends it at once.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { Corrupt, messageOf, Unavailable } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { PlannedFile } from "../lazy_files/lay_out.ts";
import { PageRefused, type PageRun, PageStream } from "./page_stream.ts";

/** More would not make the page service any faster. */
const CONNECTIONS = 4;
/** Pages that are asked for and written together. */
const RUN_PAGES = 128;
/** Pages that a connection may have asked for and not received. */
const WINDOW_PAGES = 256;
/** Runs likewise: small relations are one page each. */
const WINDOW_RUNS = 64;
/** How long nothing may arrive until the fetch fails, and until a connection is made again. */
const RETRY_MS_MAX = 60_000;
const SILENCE_MS_MAX = 15_000;
/** Pause before a connection is made again. */
const PAUSE_MS = 200;

/** What to fetch, and to where. */
interface PageFetch {
  readonly tenantId: string;
  readonly timelineId: string;
  /** All pages as of this LSN. */
  readonly lsn: Lsn;
  readonly pgdata: string;
  /** They are there, empty or of any length up to their own. */
  readonly files: readonly PlannedFile[];
  /** Connects to the page service; the connection is closed when the signal aborts. */
  connect(signal: AbortSignal): Promise<PgClient>;
  /** Ends the fetch: it then throws the signal's reason. */
  readonly signal: AbortSignal;
  /** Called with the pages that are written so far. */
  onProgress(pages: number): void;
}

/** A run and where it goes. */
interface FileRun extends PageRun {
  readonly path: string;
  readonly offset: number;
}

/** Writing failed: no page service can help. */
class CannotWrite extends Error {}

/** The runs of all files. */
function* runsOf(files: readonly PlannedFile[]): Generator<FileRun, undefined> {
  for (const { path, file } of files) {
    const { spc, db, rel, sourceFork, segment } = file;
    const tag = { spc, db, rel, fork: sourceFork };
    for (let first = 0; first < file.pages; first += RUN_PAGES) {
      yield {
        tag,
        firstBlock: segment * RELATION_SEGMENT_PAGES + first,
        pages: Math.min(RUN_PAGES, file.pages - first),
        path,
        offset: first * PAGE_SIZE,
      };
    }
  }
  return undefined;
}

/**
 * Fetches all pages. Throws Unavailable when the page service stays away, cannot give a page or the
 * disk is full; Corrupt for answers that cannot be right; the signal's reason.
 */
export async function fetchPages(fetch: PageFetch): Promise<void> {
  const ending = new AbortController();
  const signal = AbortSignal.any([fetch.signal, ending.signal]);
  const shared = new SharedFetch({ ...fetch, signal });
  const work = Array.from({ length: CONNECTIONS }, async () => {
    try {
      await new Fetcher(shared).run();
    } catch (thrown) {
      ending.abort(thrown);
    }
  });
  await Promise.all(work);
  if (signal.aborted) throw explain(signal.reason, fetch);
}

function explain(reason: unknown, { pgdata, files }: PageFetch): unknown {
  if (reason instanceof PageRefused) {
    return new Unavailable(`Cannot fetch all pages: ${reason.message}`);
  }
  if (reason instanceof CannotWrite) {
    const pages = files.reduce((sum, { file }) => sum + file.pages, 0);
    const mebibytes = Math.ceil(pages * PAGE_SIZE / 2 ** 20);
    return new Unavailable(
      `Cannot fetch all pages (${mebibytes} MB) to "${pgdata}": ${reason.message}`,
    );
  }
  return reason;
}

/** What the connections have in common. */
class SharedFetch {
  readonly fetch: PageFetch;
  readonly runs: Generator<FileRun, undefined>;
  lastArrivalMs = performance.now();
  #pages = 0;

  constructor(fetch: PageFetch) {
    this.fetch = fetch;
    this.runs = runsOf(fetch.files);
  }

  written(pages: number): void {
    this.lastArrivalMs = performance.now();
    this.#pages += pages;
    this.fetch.onProgress(this.#pages);
  }
}

/** One connection, made again when it is lost. */
class Fetcher {
  readonly #shared: SharedFetch;
  readonly #buffer = new Uint8Array(RUN_PAGES * PAGE_SIZE);
  /** Asked for and not written, oldest first. */
  readonly #open: FileRun[] = [];
  #openPages = 0;

  constructor(shared: SharedFetch) {
    this.#shared = shared;
  }

  /** Works until there is nothing left to fetch. */
  async run(): Promise<void> {
    const { signal } = this.#shared.fetch;
    for (;;) {
      try {
        return await this.#connection();
      } catch (thrown) {
        if (signal.aborted) return;
        const isFinal = thrown instanceof PageRefused || thrown instanceof CannotWrite ||
          thrown instanceof Corrupt;
        if (isFinal) throw thrown;
        if (performance.now() - this.#shared.lastArrivalMs > RETRY_MS_MAX) {
          throw new Unavailable(
            `Cannot fetch all pages: for ${RETRY_MS_MAX / 1000} s none came: ${messageOf(thrown)}`,
          );
        }
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  async #connection(): Promise<void> {
    const { fetch } = this.#shared;
    if (!this.#hasWork()) return;
    const silent = new AbortController();
    const began = performance.now();
    const silence = setInterval(() => {
      const heard = Math.max(began, this.#shared.lastArrivalMs);
      if (performance.now() - heard > SILENCE_MS_MAX) silent.abort();
    }, SILENCE_MS_MAX / 2);
    let client: PgClient | undefined;
    try {
      client = await fetch.connect(AbortSignal.any([fetch.signal, silent.signal]));
      const { tenantId, timelineId, lsn } = fetch;
      const copy = await client.copyBoth(`pagestream_v3 ${tenantId} ${timelineId}`);
      const stream = new PageStream(copy, lsn);
      for (const run of this.#open) stream.ask(run);
      while (this.#hasWork(stream)) {
        await stream.flush();
        await this.#writeOldest(stream);
      }
    } finally {
      clearInterval(silence);
      client?.close();
    }
  }

  /** Fills the window, asking `stream` if there is one. False if nothing is left. */
  #hasWork(stream?: PageStream): boolean {
    while (this.#openPages < WINDOW_PAGES && this.#open.length < WINDOW_RUNS) {
      const { value: run } = this.#shared.runs.next();
      if (run === undefined) break;
      this.#open.push(run);
      this.#openPages += run.pages;
      stream?.ask(run);
    }
    return this.#open.length > 0;
  }

  async #writeOldest(stream: PageStream): Promise<void> {
    const run = this.#open[0]!;
    await stream.take(run, this.#buffer);
    try {
      await writeAt(
        `${this.#shared.fetch.pgdata}/${run.path}`,
        run.offset,
        this.#buffer.subarray(0, run.pages * PAGE_SIZE),
      );
    } catch (thrown) {
      throw new CannotWrite(messageOf(thrown));
    }
    this.#open.shift();
    this.#openPages -= run.pages;
    this.#shared.written(run.pages);
  }
}

async function writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(offset, Deno.SeekMode.Start);
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}
