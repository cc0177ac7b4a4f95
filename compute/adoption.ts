/**
 * What a compute host does about endpoints that an earlier host, killed or crashed, left behind.
 *
 * A Postgres lives on without its host: reads work, commits wait. It is taken over only if it is
 * certainly the one that the state file speaks of (pid, start time, boot of the machine), and it
 * goes on under the same term: if somebody else was elected meanwhile, the first safekeeper that
 * says so ends it. Terms are compared, never LSNs. One that only reads just goes on. Everything
 * else is stopped at once and its data dropped; of a Postgres that ended with its host, WAL that
 * only its local files have is kept before, under the same rule.
 */
import { PAGE_SIZE, WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { pageEndAfter } from "../libs/postgres/wal/segment.ts";
import { startRecordEnd } from "../libs/postgres/wal/start_checkpoint.ts";
import { messageOf, NotFound, TimedOut, Unavailable } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { type Lsn, maxLsn, parseLsn } from "../libs/utils/lsn.ts";
import { slotPath } from "../libs/basebackup/carried_files.ts";
import { readSlotNames } from "./carried/slot_names.ts";
import type { EndpointSpec } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import type { EndpointRun, HostServices, RunParts } from "./endpoint_run.ts";
import {
  type EndpointState,
  type PrimaryState,
  type ReadOnlyState,
  removeEndpointState,
} from "./endpoint_state.ts";
import { sweepDirectory } from "./killed_postgres.ts";
import { readArenaWal } from "./lazy_files/arena.ts";
import type { PostgresProcess } from "./postgres_process.ts";
import { isLogical } from "./postgres_settings.ts";
import { PrimaryRun } from "./primary_run.ts";
import { ReadOnlyRun } from "./read_only_run.ts";
import { syncTimeline } from "./timeline_sync.ts";
import { SLOT_NAME } from "./wal_proposer/postgres_stream.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

const log = logger("compute", "adoption");

/** Longest wait for an answer of a Postgres that is to be adopted: it lives without a host so long. */
const ANSWER_MS_MAX = 60_000;
/** Pause before it is asked again after an error. */
const ASK_AGAIN_MS = 500;
/** Longest wait for one that is not to end. */
const END_MS_MAX = 10_000;

/** What an earlier host left behind. */
interface LeftBehind {
  readonly directory: EndpointDirectory;
  readonly state: EndpointState;
  /** Aborted when it is to be stopped instead. */
  readonly signal: AbortSignal;
}

/**
 * Takes over the Postgres of `state`. Throws Unavailable if that cannot be; then none runs any more
 * and its data is gone.
 */
export async function adoptEndpoint(
  services: HostServices,
  { directory, state, signal }: LeftBehind,
  onFailure: (why: string) => void,
): Promise<EndpointRun> {
  const process = await findProcess(services, directory, state);
  if (process === undefined) {
    if (state.term !== undefined) await takeLeftBehind(directory, state);
    drop(services, directory, state.spec);
    throw new Unavailable("Postgres ended while the compute host was away");
  }
  try {
    if (state.process === undefined) {
      throw new Unavailable("the compute host ended before this Postgres was recorded");
    }
    const { spec, standbyName } = state;
    const parts = { services, spec, directory, standbyName, onFailure };
    return state.term === undefined
      ? await adoptReadOnly(parts, state, process)
      : await adoptPrimary(parts, state, process, signal);
  } catch (thrown) {
    await process.signal("QUIT");
    if (!(await process.endsWithin(END_MS_MAX))) await process.signal("KILL");
    await process.endsWithin(END_MS_MAX);
    drop(services, directory, state.spec);
    throw thrown;
  }
}

async function adoptPrimary(
  parts: RunParts,
  state: PrimaryState,
  process: PostgresProcess,
  signal: AbortSignal,
): Promise<PrimaryRun> {
  const { term, startLsn, history } = state;
  const isEager = parts.spec.eager === true;
  const asked = await askUntilAnswered(parts, process, signal);
  const positions = asked ?? notedPositions(parts, startLsn);
  const resume = { term, startLsn, history, ...positions };
  const run = new PrimaryRun(parts, { walSegmentSize: WAL_SEGMENT_SIZE, resume });
  run.attach(process);
  run.proposer.start();
  run.acknowledge();
  const slots = readSlotNames(parts.directory.slotsFile);
  for (const name of slots) run.carried.set(slotPath(name), 0);
  if (!isEager) takeUp(run);
  if (isEager || isLogical(state.spec, slots.length)) {
    run.inBackground("open the WAL stream", () => run.openStream(true, slots.length));
  }
  if (slots.length === 0) run.proposer.keepWalFrom(Infinity);
  run.holdLease();
  if (isLogical(state.spec, slots.length)) {
    run.inBackground("carry slots", () => run.carrySlots([]));
  }
  return run;
}

/** From here on the library is answered; what was under way when the host ended comes first. */
function takeUp(run: PrimaryRun): void {
  const { key, written } = readArenaWal(run.directory.arena);
  const flushes = run.takeFlushes(key);
  const end = maxLsn(pageEndAfter(startRecordEnd(run.startLsn, WAL_SEGMENT_SIZE)), written);
  run.inBackground("take its WAL", async () => void await flushes.take(end));
}

/** What its library has noted, of one that has it. */
function notedPositions({ directory }: RunParts, startLsn: Lsn): Positions {
  const { written, flushed } = readArenaWal(directory.arena);
  return {
    endLsnMax: maxLsn(startRecordEnd(startLsn, WAL_SEGMENT_SIZE), written),
    streamFrom: maxLsn(startLsn, Math.max(0, flushed - PAGE_SIZE) as Lsn),
  };
}

/** It has followed the safekeepers meanwhile, or stayed where it is, without any help. */
async function adoptReadOnly(
  parts: RunParts,
  state: ReadOnlyState,
  process: PostgresProcess,
): Promise<ReadOnlyRun> {
  const run = new ReadOnlyRun(parts);
  run.resumeAt(state.startLsn);
  run.attach(process);
  run.watchPromotion();
  await run.resumeSource();
  return run;
}

/** The WAL that a Postgres wrote which ended together with its host (wal_tail.ts). */
async function takeLeftBehind(directory: EndpointDirectory, state: PrimaryState): Promise<void> {
  try {
    await syncTimeline(state.spec, { pgdata: directory.pgdata, term: state.term });
  } catch (thrown) {
    log.warning("{endpoint}: WAL of a Postgres that has ended is dropped: {why}", {
      endpoint: state.spec.endpoint_id,
      why: messageOf(thrown),
    });
  }
}

function drop(services: HostServices, directory: EndpointDirectory, spec: EndpointSpec): void {
  removeEndpointState(directory.stateFile);
  directory.discardData();
  sweepDirectory(services.launcher, directory, spec);
}

/** The process of the state file, or the one that was launched but not yet recorded there. */
async function findProcess(
  services: HostServices,
  directory: EndpointDirectory,
  state: EndpointState,
): Promise<PostgresProcess | undefined> {
  if (state.bootId !== services.bootId) return undefined;
  if (state.process !== undefined) return await services.launcher.adopt(state.process);
  const pid = recordedPid(directory.pgdata);
  const startTime = pid === undefined ? undefined : await services.launcher.startTime(pid);
  if (pid === undefined || startTime === undefined) return undefined;
  return await services.launcher.adopt({ pid, startTime });
}

function recordedPid(pgdata: string): number | undefined {
  const text = ifThere(() => Deno.readTextFileSync(`${pgdata}/postmaster.pid`));
  return text === undefined ? undefined : Number(text.split("\n")[0]);
}

/** Where a Postgres that lived on without a host stands. */
interface Positions {
  /** It has written so much WAL at most. */
  readonly endLsnMax: Lsn;
  /** It still has its WAL from here on, and a quorum has all before. */
  readonly streamFrom: Lsn;
}

/**
 * Asks a Postgres, which may have to wait itself; an eager one says where it stands. Throws
 * Unavailable, TimedOut, NotFound.
 */
async function askUntilAnswered(
  parts: RunParts,
  process: PostgresProcess,
  signal: AbortSignal,
): Promise<Positions | undefined> {
  const given = Promise.withResolvers<never>();
  const giveUp = (why: string) => given.reject(new Unavailable(why));
  const aborted = () => giveUp("it was stopped before its Postgres had answered");
  signal.addEventListener("abort", aborted, { once: true });
  if (signal.aborted) aborted();
  process.exited.then(() => giveUp("Postgres ended before it was adopted"));
  let isWanted = true;
  try {
    const asking = askAgain(parts, () => isWanted);
    return await withinLimit(
      Promise.race([asking, given.promise]),
      ANSWER_MS_MAX,
      () => new TimedOut(`its Postgres did not answer within ${ANSWER_MS_MAX / 1000} s`),
    );
  } finally {
    isWanted = false;
    signal.removeEventListener("abort", aborted);
  }
}

async function askAgain(parts: RunParts, isWanted: () => boolean): Promise<Positions | undefined> {
  for (;;) {
    try {
      return await askPositions(parts);
    } catch (thrown) {
      if (thrown instanceof NotFound || !isWanted()) throw thrown;
      log.warning("{endpoint} does not answer yet: {why}", {
        endpoint: parts.spec.endpoint_id,
        why: messageOf(thrown),
      });
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
  }
}

/**
 * How far it has flushed, and from where its slot has WAL. A walsender answers without a page of
 * any catalog. Before 15 it does not know the slot.
 */
async function askPositions(
  { services, directory, spec }: RunParts,
): Promise<Positions | undefined> {
  const isOld = spec.pg_version < 15 && spec.eager === true;
  const client = await services.sockets.connect(directory.socketDirectory, spec.pg_port, {
    ...(isOld ? { database: "postgres" } : { replication: "true" }),
    application_name: "neon compute host",
  });
  try {
    if (spec.eager !== true) {
      await client.query("IDENTIFY_SYSTEM");
      return undefined;
    }
    const [flush, restart] = isOld
      ? (await client.query(
        `SELECT pg_current_wal_flush_lsn(), restart_lsn FROM pg_get_replication_slots() ` +
          `WHERE slot_name = '${SLOT_NAME}'`,
      )).rows[0] ?? []
      : [
        (await client.query("IDENTIFY_SYSTEM")).rows[0]?.[2], // xlogpos: flushed
        (await client.query(`READ_REPLICATION_SLOT ${SLOT_NAME}`)).rows[0]?.[1],
      ];
    if (typeof flush !== "string" || typeof restart !== "string") {
      throw new NotFound("this Postgres has no slot of the WAL proposer");
    }
    return { endLsnMax: parseLsn(flush), streamFrom: parseLsn(restart) };
  } finally {
    client.close();
  }
}
