/**
 * The start of an endpoint that only reads. Nobody is asked for permission and nothing is made
 * durable: it cannot write.
 *
 *   1. a basebackup for a standby, of the newest LSN, or of the one where a static endpoint stays
 *   2. relation files laid out sparse; in pg_wal the few synthetic records that came with it
 *   3. Postgres launched as a standby; it replays these and serves queries
 *   4. a replica: it has replayed what was committed when its start was asked for
 */
import { TimedOut } from "../libs/utils/errors.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { poll } from "../libs/utils/polling.ts";
import {
  connectPageserver,
  fetchStandbyBasebackup,
  writeDataFile,
  writeStandbyWal,
} from "./basebackup.ts";
import { type ReadOnlyState, writeEndpointState } from "./endpoint_state.ts";
import { fixedSettings } from "./postgres_settings.ts";
import { type ReadOnlyRun, STANDBY_SIGNAL, staticLsn } from "./read_only_run.ts";
import { standbySettings } from "./standby_settings.ts";
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

/** Longest wait for a replica to have replayed what was committed before. */
const REPLAY = { pauseMs: [2, 2], limitMs: 60_000 } as const;

/** Brings a run up; a replica has then replayed `atLeast`. Always true: no run is to follow. */
export async function bringUpReadOnly(
  run: ReadOnlyRun,
  clock: PhaseClock,
  atLeast: Lsn,
): Promise<boolean> {
  const { services, spec, directory } = run;
  const { pgdata } = directory;
  const client = await connectPageserver(spec);
  const startPages = services.startPages.begin(spec);
  let launching: Launch | undefined;
  try {
    const prepared = directory.prepare(spec.postgres_user, services.readyDirectories);
    const savedSettings = withoutSource(new TextDecoder().decode(prepared.savedSettings));
    const kept = new TextEncoder().encode(savedSettings);
    const wanted = staticLsn(spec.mode);
    const making = makingOf(run);
    const fetching = fetchStandbyBasebackup(client, spec, wanted, pgdata, making);
    fetching.catch(() => {});
    launching = await prepareLaunch(run);
    const basebackup = await fetching;
    const map = checkedMap(basebackup, spec, wanted);
    const leasing = run.startAt(map.lsn);
    leasing.catch(() => {});
    startPages.fetch(map.lsn);
    clock.end("basebackup");
    const { control, standby } = basebackup;
    writeStandbyWal(pgdata, standby, control, making);
    writeDataFile(`${pgdata}/${STANDBY_SIGNAL}`, new Uint8Array(0), making);
    const found = { ...prepared, savedSettings: kept };
    await layOut(run, startPages, map, basebackup, found, run.conf());
    await leasing;
    clock.end("files");
    await fetchEagerly(run, map, clock);
    const state: ReadOnlyState = {
      spec,
      startLsn: map.lsn,
      standbyName: run.standbyName,
      bootId: services.bootId,
    };
    const { preparedTransactions } = basebackup;
    const { standbyName } = run;
    const common = { spec, standbyName, preparedTransactions, logicalSlots: 0, savedSettings };
    const settings = [
      ...fixedSettings({ ...common, withoutSubscriptions: false }),
      ...standbySettings({
        spec,
        parameters: control.parameters,
        transactions: standby.transactions,
      }),
    ];
    await directory.sync();
    writeEndpointState(directory.stateFile, state);
    writePassfile(run);
    await launch(run, launching, settings);
    run.watchPromotion();
    run.watchSource();
    clock.end("postgres");
    await answered(clock, firstQuery(run, wanted === undefined ? atLeast : map.lsn));
    afterStart(run, state, map);
    return true;
  } finally {
    startPages.close();
    client.close();
    await launching?.prepared.cancel();
  }
}

/** Where a replica's WAL receiver finds the token for safekeepers. */
function writePassfile({ spec, directory }: ReadOnlyRun): void {
  const token = spec.storage_auth_token;
  if (token === undefined || spec.mode !== "Replica") return;
  directory.writePassfile(token, spec.postgres_user);
}

/** What ALTER SYSTEM has set, but for where a replica streams from: that is the host's business. */
function withoutSource(savedSettings: string): string {
  return savedSettings.replaceAll(/^primary_conninfo\s*=.*\n?/gm, "");
}

/** The first query, answered when everything up to `replayed` is visible. */
function firstQuery(run: ReadOnlyRun, replayed: Lsn): Promise<void> {
  return firstSession(run, async (client) => {
    let position: Lsn | undefined;
    const isThere = await poll(REPLAY, async () => {
      const { rows } = await client.query("SELECT pg_last_wal_replay_lsn()");
      position = parseLsn(rows[0]![0]!);
      return position >= replayed || undefined;
    });
    if (isThere) return;
    throw new TimedOut(
      `Cannot start replica "${run.spec.endpoint_id}": it has replayed ${formatLsn(position!)}, ` +
        `committed was ${formatLsn(replayed)}`,
    );
  });
}
