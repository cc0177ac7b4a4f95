/**
 * The start of an endpoint, in the order that its safety rests on:
 *
 *   1. an election among the safekeepers: gives the term, and the LSN where the history ends
 *   2. (term, LSN) written durably, before anything is appended under that term
 *   3. a basebackup of that LSN; relation files laid out sparse, a shutdown checkpoint synthesized
 *   4. Postgres launched; it finds a clean shutdown and accepts connections without recovery
 *   5. its WAL stream opened; from now on a commit waits for a quorum
 *   6. a query answered, with the stream in force (sync_state = sync): only now it is announced
 *
 * What can overlap does: directories are prepared and the pageserver is connected to during the
 * election, and the durable write happens while the pageserver works.
 */
import { setImmediate } from "node:timers/promises";
import { decodeLazyFilesMap, type LazyFilesMap } from "../libs/basebackup/lazy_files_map.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import type { SlotState } from "../libs/postgres/replication_slot.ts";
import { BadRequest, Conflict, Corrupt, TimedOut, Unavailable } from "../libs/utils/errors.ts";
import { encodeHex } from "../libs/utils/hex.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import {
  type Basebackup,
  connectPageserver,
  fetchBasebackup,
  type FileMaking,
  writeDataFile,
  writeStartWal,
} from "./basebackup.ts";
import { writeSlotNames } from "./carried/slot_names.ts";
import { fetchSlotsWal, oldestRestartLsn } from "./carried/slot_wal.ts";
import type { EndpointSpec, StartTimings } from "./client.ts";
import type { EndpointDirectory, Prepared } from "./endpoint_directory.ts";
import { EndpointRun, type HostServices } from "./endpoint_run.ts";
import { type EndpointState, writeEndpointState } from "./endpoint_state.ts";
import {
  disableSubscriptions,
  isFirstStart,
  mayHaveSubscriptions,
} from "./inherited_subscriptions.ts";
import { layOutInSteps, plannedLengths } from "./lazy_files/lay_out.ts";
import {
  fixedSettings,
  HBA_CONF,
  isLogical,
  postgresConf,
  SUPERUSER,
} from "./postgres_settings.ts";
import type { Election } from "./wal_proposer/driver.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

const log = logger("compute", "start");

/** Longest wait for a quorum of safekeepers. */
const ELECTION_MS_MAX = 10_000;
/** Longest wait for Postgres to accept connections. */
const READY_MS_MAX = 60_000;
/** Longest wait for the WAL stream to be the synchronous standby. */
const SYNC_MS_MAX = 10_000;
const SYNC_LOOK_MS = 1;
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

/** A started endpoint. */
export interface Started {
  readonly run: EndpointRun;
  readonly timings: StartTimings;
}

/** Times since the start, by phase. */
class PhaseClock {
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

/** Starts an endpoint. Throws what goes wrong, after everything has been cleaned up again. */
export async function startEndpoint(
  services: HostServices,
  spec: EndpointSpec,
  directory: EndpointDirectory,
  onFailure: (why: string) => void,
): Promise<Started> {
  checkPort(spec);
  const clock = new PhaseClock();
  for (;;) {
    const standbyName = `neon_${encodeHex(crypto.getRandomValues(new Uint8Array(16)))}`;
    const proposing = { walSegmentSize: WAL_SEGMENT_SIZE };
    const run = new EndpointRun(services, spec, directory, standbyName, proposing, onFailure);
    try {
      const isFinal = await bringUp(run, clock);
      if (run.failure !== undefined) throw new Unavailable(run.failure);
      if (isFinal) return { run, timings: clock.timings() };
      await run.stop("fast");
    } catch (thrown) {
      const { failure } = run;
      await run.abandon();
      if (failure === undefined || thrown instanceof Unavailable) throw thrown;
      throw new Unavailable(`Cannot start endpoint "${spec.endpoint_id}": ${failure}`);
    }
  }
}

/** False if this run has only disabled subscriptions, and another one is to follow. */
async function bringUp(run: EndpointRun, clock: PhaseClock): Promise<boolean> {
  const { services, spec, directory, proposer } = run;
  proposer.start();
  const connecting = connectPageserver(spec);
  try {
    connecting.catch(() => {}); // thrown below, unless the election fails first
    const prepared = directory.prepare(spec.postgres_user, services.readyDirectory);
    const { savedSettings } = prepared;
    const election = await proposer.elected(ELECTION_MS_MAX);
    clock.end("election");
    const { startLsn } = election;
    const { pgdata } = directory;
    const client = await connecting;
    const fetching = fetchBasebackup(client, spec, startLsn, pgdata, makingOf(run));
    fetching.catch(() => {});
    const state = stateOf(run, election);
    writeEndpointState(directory.stateFile, state);
    const basebackup = await fetching;
    clock.end("basebackup");
    const map = checkedMap(basebackup, spec, startLsn);
    for (const [path, crc] of basebackup.carried) run.carried.set(path, crc);
    const withoutSubscriptions = isFirstStart(election) &&
      mayHaveSubscriptions(map, Deno.readFileSync(`${pgdata}/global/pg_filenode.map`));
    await layOut(run, map, basebackup, prepared);
    const slots = await getSlotWal(run, election, basebackup);
    clock.end("files");
    const logStart = Deno.statSync(directory.logFile).size;
    const { preparedTransactions } = basebackup;
    // Its clearing found no Postgres to end, so none may be started now
    if (run.failure !== undefined) throw new Unavailable(run.failure);
    run.attach(services.launcher.start({
      pgdata,
      logFile: directory.logFile,
      arena: directory.arena,
      binDir: spec.pg_bin_dir,
      owner: spec.postgres_user,
      settings: fixedSettings({
        spec,
        standbyName: run.standbyName,
        preparedTransactions,
        logicalSlots: slots.length,
        withoutSubscriptions,
        savedSettings: new TextDecoder().decode(savedSettings),
      }),
    }));
    await run.process.ready(pgdata, directory.logFile, logStart, READY_MS_MAX);
    clock.end("postgres");
    await withinLimit(
      Promise.all([run.openStream(false), firstQuery(spec, withoutSubscriptions)]),
      ANSWER_MS_MAX,
      () => new TimedOut("Cannot start Postgres: it does not answer its first query"),
    );
    if (isLogical(spec, slots.length)) {
      writeSlotNames(directory.slotsFile, slots.map(({ name }) => name));
      await run.carrySlots(slots);
    }
    clock.end("first_query");
    if (!withoutSubscriptions) {
      afterStart(run, state, preparedTransactions);
      services.readyDirectory.make(plannedLengths(map), spec.postgres_user)
        .then(() => services.ready.fill());
    }
    return !withoutSubscriptions;
  } finally {
    connecting.then((client) => client.close(), () => {});
  }
}

function makingOf(run: EndpointRun): FileMaking {
  return { owner: run.spec.postgres_user, ready: run.services.ready };
}

function stateOf(run: EndpointRun, { term, startLsn, history }: Election): EndpointState {
  return {
    spec: run.spec,
    term,
    startLsn,
    history,
    standbyName: run.standbyName,
    bootId: run.services.bootId,
  };
}

function checkPort(spec: EndpointSpec): void {
  try {
    Deno.listen({ hostname: "127.0.0.1", port: spec.pg_port }).close();
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.AddrInUse)) throw thrown;
    throw new Conflict(
      `Cannot start endpoint "${spec.endpoint_id}": port ${spec.pg_port} is in use`,
    );
  }
}

/** The basebackup's map. Throws Corrupt if it is of another position or version. */
function checkedMap(basebackup: Basebackup, spec: EndpointSpec, startLsn: Lsn): LazyFilesMap {
  const map = decodeLazyFilesMap(basebackup.mapBytes);
  if (map.lsn === startLsn && map.pgMajor === spec.pg_version) return map;
  throw new Corrupt(
    `Cannot start PostgreSQL ${spec.pg_version} at ${formatLsn(startLsn)}: the basebackup is of ` +
      `PostgreSQL ${map.pgMajor} at ${formatLsn(map.lsn)}`,
  );
}

/** Everything in pgdata that is not in the basebackup. Other endpoints' WAL flows meanwhile. */
async function layOut(
  run: EndpointRun,
  map: LazyFilesMap,
  basebackup: Basebackup,
  { savedSettings, empty }: Prepared,
): Promise<void> {
  const { spec, directory } = run;
  const { pgdata } = directory;
  const making = makingOf(run);
  const owner = spec.postgres_user;
  writeStartWal(pgdata, map.lsn, map.prevLsn, basebackup.control, making);
  const text = (name: string, content: string) =>
    writeDataFile(`${pgdata}/${name}`, new TextEncoder().encode(content), making);
  text("postgresql.conf", postgresConf(spec, false));
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
    bootId: run.services.bootId,
    keep: basebackup.relationFiles,
    empty,
    takeReady: (path) => run.services.ready.take(path),
    ...(owner === undefined ? {} : { owner }),
  });
  while (steps.next().done !== true) await setImmediate();
}

/** The WAL before the start, as far as logical slots need it; returns the slots that have it. */
async function getSlotWal(
  run: EndpointRun,
  { donor, term, startLsn }: Election,
  { slots }: Basebackup,
): Promise<readonly SlotState[]> {
  const { spec, directory, proposer } = run;
  const kept = await fetchSlotsWal({
    source: donor,
    tenantId: spec.tenant_id,
    timelineId: spec.timeline_id,
    term,
    pgdata: directory.pgdata,
    owner: spec.postgres_user,
    walSegmentSize: WAL_SEGMENT_SIZE,
    startLsn,
  }, slots);
  proposer.keepWalFrom(oldestRestartLsn(kept) ?? Infinity);
  return kept;
}

/** A client's first query over TCP, and the stream's place as the synchronous standby. */
async function firstQuery(spec: EndpointSpec, withoutSubscriptions: boolean): Promise<void> {
  const client = await connectAsClient(spec);
  try {
    const { rows } = await client.query("SELECT current_setting('server_version_num')");
    checkMinorVersion(Number(rows[0]![0]));
    const deadline = performance.now() + SYNC_MS_MAX;
    while (!(await isSynchronous(client))) {
      if (performance.now() > deadline) {
        throw new TimedOut("Cannot start Postgres: its WAL stream is not synchronous");
      }
      await new Promise((resolve) => setTimeout(resolve, SYNC_LOOK_MS));
    }
    if (withoutSubscriptions) await disableSubscriptions(client, spec.endpoint_id);
  } finally {
    client.close();
  }
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

function connectAsClient(spec: EndpointSpec): Promise<PgClient> {
  return PgClient.connect({ hostname: "127.0.0.1", port: spec.pg_port }, {
    user: SUPERUSER,
    database: "postgres",
    application_name: "neon compute host",
  });
}

/** The function under pg_stat_replication: the view would read more catalogs. */
async function isSynchronous(client: PgClient): Promise<boolean> {
  const { rows } = await client.query(
    "SELECT 1 FROM pg_stat_get_wal_senders() WHERE sync_state = 'sync'",
  );
  return rows.length > 0;
}

/** What is not needed for the first query. */
function afterStart(run: EndpointRun, state: EndpointState, preparedTransactions: number): void {
  const { spec, directory } = run;
  run.inBackground("record the process", async () => {
    writeEndpointState(directory.stateFile, { ...state, process: await run.process.identity() });
  });
  run.inBackground("start autovacuum", async () => {
    Deno.writeTextFileSync(`${directory.pgdata}/postgresql.conf`, postgresConf(spec, true));
    await run.process.signal("HUP");
  });
  if (preparedTransactions > 0) {
    run.inBackground("list prepared transactions", () => logPreparedTransactions(spec));
  }
  directory.sweep();
}

/** Prepared transactions come with a branch and hold their locks until somebody ends them. */
async function logPreparedTransactions(spec: EndpointSpec): Promise<void> {
  const client = await connectAsClient(spec);
  try {
    const { rows } = await client.query("SELECT gid, owner, database FROM pg_prepared_xacts");
    for (const [gid, owner, database] of rows) {
      log.warning("{endpoint} has inherited prepared transaction {gid} of {owner} in {database}", {
        endpoint: spec.endpoint_id,
        gid,
        owner,
        database,
      });
    }
  } finally {
    client.close();
  }
}
