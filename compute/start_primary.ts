/**
 * The start of a primary, in the order that its safety rests on:
 *
 *   1. an election among the safekeepers: gives the term, and the LSN where the history ends
 *   2. (term, LSN) written durably, before anything is appended under that term
 *   3. a basebackup of that LSN; relation files laid out sparse, a shutdown checkpoint synthesized
 *   4. Postgres launched; it finds a clean shutdown and accepts connections without recovery
 *   5. its WAL taken, by the library's connection, or a stream; a commit waits for a quorum
 *   6. a query answered, with a stream in force (sync_state = sync): only now it is announced
 *
 * What can overlap does: directories are prepared and the pageserver is connected to during the
 * election; the launcher runs and the durable write happens while the pageserver works.
 */
import type { PgClient } from "../libs/pgwire/client.ts";
import { TimedOut } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { poll } from "../libs/utils/polling.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { pageEndAfter } from "../libs/postgres/wal/segment.ts";
import { startRecordEnd } from "../libs/postgres/wal/start_checkpoint.ts";
import type { SlotState } from "../libs/postgres/replication_slot.ts";
import {
  type Basebackup,
  connectPageserver,
  fetchBasebackup,
  writeStartWal,
} from "./basebackup.ts";
import { writeSlotNames } from "./carried/slot_names.ts";
import { fetchSlotsWal, oldestRestartLsn } from "./carried/slot_wal.ts";
import {
  type PrimaryState,
  writeEndpointState,
  writeFirstEndpointState,
} from "./endpoint_state.ts";
import {
  disableSubscriptions,
  isFirstStart,
  mayHaveSubscriptions,
} from "./inherited_subscriptions.ts";
import { fixedSettings, isLogical, postgresConf } from "./postgres_settings.ts";
import type { PrimaryRun } from "./primary_run.ts";
import {
  afterStart,
  answered,
  checkedMap,
  fetchEagerly,
  firstSession,
  type Launch,
  launch,
  layOut,
  makingOf,
  type PhaseClock,
  prepareLaunch,
} from "./start_steps.ts";
import type { Election } from "./wal_proposer/options.ts";
import type { WalFlushes } from "./wal_proposer/wal_flushes.ts";

const log = logger("compute", "start");

/** Longest wait for a quorum of safekeepers. */
const ELECTION_MS_MAX = 10_000;
/** How long a started Postgres is left to whoever has waited for it. */
const FIRST_QUERIES_MS = 250;
/** Longest wait for the WAL stream to be the synchronous standby. */
const SYNC = { pauseMs: [1, 1], limitMs: 10_000 } as const;

/** False if this run has only disabled subscriptions, and another one is to follow. */
export async function bringUpPrimary(run: PrimaryRun, clock: PhaseClock): Promise<boolean> {
  const { services, spec, directory, proposer } = run;
  proposer.start();
  const connecting = connectPageserver(spec);
  const startPages = services.startPages.begin(spec);
  let launching: Launch | undefined;
  try {
    connecting.catch(() => {}); // thrown below, unless the election fails first
    const prepared = directory.prepare(spec.postgres_user, services.readyDirectories);
    const { savedSettings } = prepared;
    const election = await proposer.elected(ELECTION_MS_MAX);
    clock.end("election");
    const { startLsn } = election;
    run.acknowledge();
    const { pgdata } = directory;
    const client = await connecting;
    const fetching = fetchBasebackup(client, spec, startLsn, pgdata, makingOf(run));
    fetching.catch(() => {});
    startPages.fetch(startLsn);
    launching = await prepareLaunch(run);
    const state = stateOf(run, election);
    const noting = noteFirst(run, state);
    await Promise.allSettled([fetching, noting]); // nothing of it may come after its removal
    await noting;
    const basebackup = await fetching;
    clock.end("basebackup");
    const map = checkedMap(basebackup, spec, startLsn);
    for (const [path, crc] of basebackup.carried) run.carried.set(path, crc);
    const withoutSubscriptions = isFirstStart(election) &&
      mayHaveSubscriptions(map, Deno.readFileSync(`${pgdata}/global/pg_filenode.map`));
    writeStartWal(pgdata, map.lsn, map.prevLsn, basebackup.control, makingOf(run));
    const wal = spec.eager === true ? undefined : services.walChannels.newAddress();
    const conf = postgresConf(spec, false);
    await layOut(run, startPages, map, basebackup, prepared, conf, wal);
    const slots = await getSlotWal(run, election, basebackup);
    clock.end("files");
    await fetchEagerly(run, map, clock);
    const { preparedTransactions } = basebackup;
    const flushes = wal === undefined ? undefined : run.takeFlushes(wal.key);
    await launch(
      run,
      launching,
      fixedSettings({
        spec,
        standbyName: wal === undefined ? run.standbyName : undefined,
        preparedTransactions,
        logicalSlots: slots.length,
        withoutSubscriptions,
        savedSettings: new TextDecoder().decode(savedSettings),
      }),
    );
    clock.end("postgres");
    const walComes = flushes === undefined
      ? run.openStream(false, slots.length)
      : firstFlush(flushes, startLsn);
    await answered(clock, Promise.all([walComes, firstQuery(run, withoutSubscriptions)]));
    if (isLogical(spec, slots.length)) {
      if (flushes !== undefined) await run.openStream(false, slots.length);
      writeSlotNames(directory.slotsFile, slots.map(({ name }) => name));
      await run.carrySlots(slots);
    }
    if (withoutSubscriptions) return false;
    run.holdLease();
    afterStart(run, state, map);
    startAutovacuum(run);
    if (preparedTransactions > 0) {
      run.inBackground("list prepared transactions", () => logPreparedTransactions(run));
    }
    return true;
  } finally {
    startPages.close();
    connecting.then((client) => client.close(), () => {});
    await launching?.prepared.cancel();
  }
}

/** Notes the run durably, with what has changed meanwhile. */
async function noteFirst(run: PrimaryRun, state: PrimaryState): Promise<void> {
  const { directory } = run;
  await directory.sync();
  const { spec } = run;
  await writeFirstEndpointState(directory.stateFile, { ...state, spec });
  if (run.spec !== spec) writeEndpointState(directory.stateFile, { ...state, spec: run.spec });
}

function stateOf(run: PrimaryRun, { term, startLsn, history }: Election): PrimaryState {
  return {
    spec: run.spec,
    term,
    startLsn,
    history,
    standbyName: run.standbyName,
    bootId: run.services.bootId,
  };
}

/** The WAL before the start, as far as logical slots need it; returns the slots that have it. */
async function getSlotWal(
  run: PrimaryRun,
  { donor, term, startLsn }: Election,
  { slots }: Basebackup,
): Promise<readonly SlotState[]> {
  const { spec, directory, proposer } = run;
  const kept = await fetchSlotsWal({
    source: donor,
    tenantId: spec.tenant_id,
    timelineId: spec.timeline_id,
    token: () => spec.storage_auth_token,
    term,
    pgdata: directory.pgdata,
    owner: spec.postgres_user,
    walSegmentSize: WAL_SEGMENT_SIZE,
    startLsn,
  }, slots);
  proposer.keepWalFrom(oldestRestartLsn(kept) ?? Infinity);
  return kept;
}

/**
 * The library's connection, and the record that Postgres was started from, which is in its files
 * already: with it the start of the term is on a quorum.
 */
async function firstFlush(flushes: WalFlushes, startLsn: Lsn): Promise<void> {
  await flushes.connected;
  await flushes.take(pageEndAfter(startRecordEnd(startLsn, WAL_SEGMENT_SIZE)));
}

/** Throws TimedOut if the stream does not become the synchronous standby. */
async function checkSynchronous(client: PgClient): Promise<void> {
  const isInForce = await poll(SYNC, async () => await isSynchronous(client) || undefined);
  if (!isInForce) throw new TimedOut("Cannot start Postgres: its WAL stream is not synchronous");
}

/** The first query; without the library also the stream's place as the synchronous standby. */
function firstQuery(run: PrimaryRun, withoutSubscriptions: boolean): Promise<void> {
  return firstSession(run, async (client) => {
    if (run.spec.eager === true) await checkSynchronous(client);
    if (withoutSubscriptions) await disableSubscriptions(client, run.spec.endpoint_id);
  });
}

/** The function under pg_stat_replication: the view would read more catalogs. */
async function isSynchronous(client: PgClient): Promise<boolean> {
  const { rows } = await client.query(
    "SELECT 1 FROM pg_stat_get_wal_senders() WHERE sync_state = 'sync'",
  );
  return rows.length > 0;
}

/** Not before the first queries, also of whoever waits for the start: it takes turns with them. */
function startAutovacuum(run: PrimaryRun): void {
  const { pgdata } = run.directory;
  run.restInBackground(FIRST_QUERIES_MS);
  run.inBackground("start autovacuum", async () => {
    Deno.writeTextFileSync(`${pgdata}/postgresql.conf`, postgresConf(run.spec, true));
    await run.process.signal("HUP");
  });
}

/** Prepared transactions come with a branch and hold their locks until somebody ends them. */
async function logPreparedTransactions(run: PrimaryRun): Promise<void> {
  const client = await run.openSession();
  try {
    const { rows } = await client.query("SELECT gid, owner, database FROM pg_prepared_xacts");
    for (const [gid, owner, database] of rows) {
      log.warning("{endpoint} has inherited prepared transaction {gid} of {owner} in {database}", {
        endpoint: run.spec.endpoint_id,
        gid,
        owner,
        database,
      });
    }
  } finally {
    client.close();
  }
}
