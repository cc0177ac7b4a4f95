/**
 * What the starts of all kinds of endpoints have in common: laying out the data directory from a
 * basebackup, launching Postgres in it, asking it the first query.
 */
import { setImmediate } from "node:timers/promises";
import type { PgClient } from "../libs/pgwire/client.ts";
import { decodeLazyFilesMap, type LazyFilesMap } from "../libs/basebackup/lazy_files_map.ts";
import { BadRequest, Corrupt, TimedOut, Unavailable } from "../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import {
  type Basebackup,
  connectPageserver,
  type FileMaking,
  writeDataFile,
} from "./basebackup.ts";
import type { EndpointSpec, StartTimings } from "./client.ts";
import type { Prepared } from "./endpoint_directory.ts";
import type { EndpointRun } from "./endpoint_run.ts";
import { type EndpointState, writeEndpointState } from "./endpoint_state.ts";
import { fetchPages } from "./eager_files/fetch_pages.ts";
import { markMaps } from "./carried/free_space.ts";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import type { ArenaWal } from "./lazy_files/arena_wal.ts";
import { layOutInSteps, planFiles, plannedLengths, showControlFile } from "./lazy_files/lay_out.ts";
import type { PreparedPostgres, Settings } from "./postgres_process.ts";
import { HBA_CONF } from "./postgres_settings.ts";
import type { StartPageFetch } from "./start_pages.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

/** Longest wait for Postgres to accept connections. */
const READY_MS_MAX = 60_000;
/** Longest wait for the first query; the library's own limit for a page is 60 s. */
const ANSWER_MS_MAX = 75_000;

/**
 * Before these releases a commit in the first moments after the start did not wait for synchronous
 * standbys (the checkpointer had not published that there are any).
 */
const MINOR_VERSION_FLOORS: Readonly<Record<number, number>> = {
  14: 140018,
  15: 150013,
  16: 160009,
  17: 170005,
};

/** Times since the start, by phase. */
export class PhaseClock {
  readonly #began = performance.now();
  #last = this.#began;
  readonly #phases: Record<string, number> = {};

  /** The phase that began at the last call ends. */
  end(phase: keyof StartTimings): void {
    const now = performance.now();
    this.#phases[phase] = Math.round((now - this.#last) * 10) / 10;
    this.#last = now;
  }

  timings(): StartTimings {
    const total = Math.round((performance.now() - this.#began) * 10) / 10;
    return { ...this.#phases, total } as unknown as StartTimings;
  }
}

/** How the files of a run are made. */
export function makingOf(run: EndpointRun): FileMaking {
  return { owner: run.spec.postgres_user, ready: run.services.ready };
}

/** The basebackup's map. Throws Corrupt if it is of another version, or not of `startLsn`. */
export function checkedMap(
  basebackup: Basebackup,
  spec: EndpointSpec,
  startLsn: Lsn | undefined,
): LazyFilesMap {
  const map = decodeLazyFilesMap(basebackup.mapBytes);
  const wanted = startLsn ?? map.lsn;
  if (map.lsn === wanted && map.pgMajor === spec.pg_version) return map;
  throw new Corrupt(
    `Cannot start PostgreSQL ${spec.pg_version} at ${formatLsn(wanted)}: the basebackup is of ` +
      `PostgreSQL ${map.pgMajor} at ${formatLsn(map.lsn)}`,
  );
}

/**
 * Everything in pgdata that is not in the basebackup but WAL, and the pages that Postgres reads
 * first. Other endpoints' WAL flows meanwhile.
 */
export async function layOut(
  run: EndpointRun,
  startPages: StartPageFetch,
  map: LazyFilesMap,
  basebackup: Basebackup,
  { savedSettings, empty }: Prepared,
  conf: string,
  wal?: ArenaWal,
): Promise<void> {
  const { spec, directory, services } = run;
  const { pgdata } = directory;
  const making = makingOf(run);
  const owner = spec.postgres_user;
  const text = (name: string, content: string) =>
    writeDataFile(`${pgdata}/${name}`, new TextEncoder().encode(content), making);
  text("postgresql.conf", conf);
  text("pg_hba.conf", HBA_CONF);
  writeDataFile(`${pgdata}/postgresql.auto.conf`, savedSettings, making);
  writeDataFile(`${pgdata}/global/pg_control`, basebackup.controlBytes, making);
  const steps = layOutInSteps({
    pgdata,
    arenaPath: directory.arena,
    map,
    tenantId: spec.tenant_id,
    timelineId: spec.timeline_id,
    pageserver: spec.pageserver,
    token: spec.storage_auth_token,
    wal,
    bootId: services.bootId,
    eager: spec.eager === true,
    keep: basebackup.relationFiles,
    ...(empty === undefined ? {} : { empty }),
    takeReady: (path) => services.ready.take(path),
    ...(owner === undefined ? {} : { owner }),
  });
  while (steps.next().done !== true) await setImmediate();
  await startPages.place(map, pgdata, directory.arena);
}

/** Fetches every page of an eager endpoint. Others have fetched none yet, and need not. */
export async function fetchEagerly(
  run: EndpointRun,
  map: LazyFilesMap,
  clock: PhaseClock,
): Promise<void> {
  const { spec, directory } = run;
  if (spec.eager !== true) return;
  const files = planFiles(map);
  const totalBytes = files.reduce((sum, { file }) => sum + file.pages, 0) * PAGE_SIZE;
  await fetchPages({
    tenantId: spec.tenant_id,
    timelineId: spec.timeline_id,
    lsn: map.lsn,
    pgdata: directory.pgdata,
    files,
    connect: (signal) => connectPageserver(spec, signal),
    signal: run.startSignal,
    onProgress: (pages) => run.fetched(pages * PAGE_SIZE, totalBytes),
  });
  markMaps(directory.pgdata, files.map(({ path }) => path));
  showControlFile(directory.pgdata);
  clock.end("pages");
}

/** A Postgres that waits for what is to be told last. */
export interface Launch {
  readonly prepared: PreparedPostgres;
  /** Where its log begins. */
  readonly logStart: number;
}

/**
 * Gets Postgres ready to start, while others are waited for: the programs that run before it take a
 * fourth of its own start. The data directory and the log are there; cancel it in the end.
 */
export async function prepareLaunch(run: EndpointRun): Promise<Launch> {
  const { services, spec, directory } = run;
  await setImmediate(); // what was asked for goes out first: to make a process takes milliseconds
  const { pgdata, logFile, arena } = directory;
  const logStart = Deno.statSync(logFile).size;
  const prepared = services.launcher.prepare({
    pgdata,
    logFile,
    arena: spec.eager === true ? undefined : arena,
    binDir: spec.pg_bin_dir,
    owner: spec.postgres_user,
  });
  return { prepared, logStart };
}

/** Launches Postgres with these settings; returns when it accepts connections. */
export async function launch(
  run: EndpointRun,
  { prepared, logStart }: Launch,
  settings: Settings,
): Promise<void> {
  const { pgdata, logFile } = run.directory;
  // Its clearing found no Postgres to end, so none may be started now
  if (run.failure !== undefined) throw new Unavailable(run.failure);
  run.attach(prepared.start(settings));
  await run.process.ready(pgdata, logFile, logStart, READY_MS_MAX);
}

/** Waits for what says that Postgres serves. */
export async function answered(clock: PhaseClock, work: Promise<unknown>): Promise<void> {
  const late = () => new TimedOut("Cannot start Postgres: it does not answer its first query");
  await withinLimit(work, ANSWER_MS_MAX, late);
  clock.end("first_query");
}

/** The first session: whether Postgres is a release that can be used, and what else is to be true. */
export async function firstSession(
  run: EndpointRun,
  work: (client: PgClient) => Promise<void>,
): Promise<void> {
  const client = await run.openSession();
  try {
    const { rows } = await client.query("SELECT current_setting('server_version_num')");
    checkMinorVersion(Number(rows[0]![0]));
    await work(client);
  } finally {
    client.close();
  }
}

/** What the first query did not need, and what makes the next start a short one. */
export function afterStart(run: EndpointRun, state: EndpointState, map: LazyFilesMap): void {
  run.inBackground("record the process", () => recordProcess(run, state));
  run.sweep();
  makeReady(run, map);
}

/** Writes the state file again, now that it is known which process is to be adopted. */
async function recordProcess(run: EndpointRun, state: EndpointState): Promise<void> {
  const process = await run.process.identity();
  writeEndpointState(run.directory.stateFile, { ...state, spec: run.spec, process });
}

/**
 * Gets ready for the next start: remembers what this one has read, and makes files in the
 * background; with their lengths if they cost nothing.
 */
function makeReady(run: EndpointRun, map: LazyFilesMap): void {
  const { services: { ready, readyDirectories, startPages }, spec, directory } = run;
  if (spec.eager !== true) {
    run.inBackground("remember its pages", async () => startPages.learn(spec, directory.arena));
  }
  const sparse = spec.eager === true
    ? Promise.resolve()
    : readyDirectories.make(plannedLengths(map), spec.postgres_user);
  sparse.then(() => ready.fill());
}

/** Throws BadRequest for a Postgres whose first commits might not wait for the WAL proposer. */
function checkMinorVersion(versionNumber: number): void {
  const floor = MINOR_VERSION_FLOORS[Math.floor(versionNumber / 10000)] ?? 0;
  if (versionNumber >= floor) return;
  throw new BadRequest(
    `Cannot use PostgreSQL ${versionNumber}: minor versions before ${floor} have a race at start ` +
      `that loses commits`,
  );
}
