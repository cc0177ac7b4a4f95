/**
 * The safekeeper's PostgreSQL port. A connection names its timeline in the startup options
 * (`-c timeline_id=<hex> tenant_id=<hex>`, or the older ztimelineid and ztenantid) and sends
 * commands:
 *
 *   IDENTIFY_SYSTEM                                  system id, timeline 1, position, no database
 *   TIMELINE_STATUS                                  flush_lsn, commit_lsn; no row if unknown
 *   START_REPLICATION [SLOT x] [PHYSICAL] X/X [TIMELINE n] [(term='N')]
 *   START_WAL_PUSH (proto_version '3', allow_timeline_creation 'false')
 *   SHOW wal_segment_size, SHOW data_directory_mode  what pg_receivewal asks first
 *   SET ...                                          ignored
 */
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { errorBody } from "../libs/pgwire/messages.ts";
import { isDisconnect, type PgServer, type PgSession, servePg } from "../libs/pgwire/server.ts";
import type { Address } from "../libs/utils/address.ts";
import { BadRequest, Forbidden, messageOf, NotFound } from "../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, parseLsn } from "../libs/utils/lsn.ts";
import type { Timeline } from "./timeline.ts";
import type { Timelines } from "./timelines.ts";
import { serveProposer } from "./wal_push.ts";
import { type ReplicationRequest, streamWal } from "./wal_sender.ts";

const log = logger("safekeeper", "wal_service");

/** Longest message of a proposer: 128 KiB of WAL, or a long history of terms. */
const PUSH_LIMIT_BYTES = 2 * 1024 * 1024;
/** Longest reply of a receiver: feedback, in some 200 bytes. */
const REPLY_LIMIT_BYTES = 64 * 1024;

const TEXT = 25;
const INT4 = 23;

/** Listens for proposers and receivers. Throws Deno.errors.AddrInUse if the port is taken. */
export function serveWal(
  timelines: Timelines,
  at: Address,
  authenticator?: Authenticator,
): PgServer {
  return servePg({
    ...at,
    login: authenticator && ((password) => authenticator.login(password)),
    onConnection: (session) => serveSession(session, timelines),
  });
}

async function serveSession(session: PgSession, timelines: Timelines): Promise<void> {
  for (;;) {
    const query = await session.nextQuery();
    if (query === undefined) return;
    try {
      const copied = await runCommand(session, timelines, query.trim());
      if (copied) return; // the copy owned the connection, and it is over
    } catch (thrown) {
      if (isDisconnect(thrown)) return;
      await session.sendError(sqlState(thrown), messageOf(thrown));
    }
  }
}

function sqlState(thrown: unknown): string {
  return thrown instanceof Forbidden ? "42501" : "XX000";
}

/** Runs one command; true if it was a copy, with which the connection ends. */
async function runCommand(
  session: PgSession,
  timelines: Timelines,
  query: string,
): Promise<boolean> {
  const verb = query.split(/[\s(;]/, 1)[0]!.toUpperCase();
  switch (verb) {
    case "SET":
      await session.commandComplete("SET");
      return false;
    case "SHOW":
      await show(session, timelines, query);
      return false;
    case "IDENTIFY_SYSTEM":
      await identifySystem(session, timelines);
      return false;
    case "TIMELINE_STATUS":
      await timelineStatus(session, timelines);
      return false;
    case "START_WAL_PUSH":
      checkPushOptions(query);
      await serveProposer(
        await session.beginCopyBoth(PUSH_LIMIT_BYTES),
        timelines,
        session.access,
      );
      return true;
    case "START_REPLICATION":
      await startReplication(session, timelines, query);
      return true;
    default:
      throw new BadRequest(`Cannot run "${query}": a safekeeper does not know this command`);
  }
}

/** The timeline that the startup options name; undefined if it is not here. Throws BadRequest. */
function namedTimeline(session: PgSession, timelines: Timelines): Timeline | undefined {
  const options = session.options();
  const tenant = options.get("tenant_id") ?? options.get("ztenantid");
  const timeline = options.get("timeline_id") ?? options.get("ztimelineid");
  if (tenant === undefined || timeline === undefined) {
    throw new BadRequest("Cannot find a timeline: the options name no tenant_id and timeline_id");
  }
  const tenantId = parseTenantId(tenant);
  session.access.checkTenant(tenantId);
  return timelines.find(tenantId, parseTimelineId(timeline));
}

function requireTimeline(session: PgSession, timelines: Timelines): Timeline {
  const found = namedTimeline(session, timelines);
  if (found !== undefined) return found;
  throw new BadRequest(
    `Cannot find the timeline of "${session.parameters.get("options")}" on this safekeeper`,
  );
}

/** Recovering proposers and peers see all durable WAL, everybody else what is committed. */
function seesUncommitted(session: PgSession): boolean {
  const name = session.parameters.get("application_name") ?? "";
  return name === "wal_proposer_recovery" || name.startsWith("safekeeper");
}

async function identifySystem(session: PgSession, timelines: Timelines): Promise<void> {
  const { acceptor } = requireTimeline(session, timelines);
  const position = seesUncommitted(session) ? acceptor.flushLsn : acceptor.commitLsn;
  const columns = [
    { name: "systemid", typeOid: TEXT },
    { name: "timeline", typeOid: INT4 },
    { name: "xlogpos", typeOid: TEXT },
    { name: "dbname", typeOid: TEXT },
  ];
  const row = [acceptor.state.systemId.toString(), "1", formatLsn(position), null];
  await session.sendRows(columns, [row], "IDENTIFY_SYSTEM");
}

async function show(session: PgSession, timelines: Timelines, query: string): Promise<void> {
  const name = /^SHOW\s+(\w+)/i.exec(query)?.[1] ?? "";
  let value: string;
  if (name === "data_directory_mode") value = "0700";
  else if (name === "wal_segment_size") {
    value = `${requireTimeline(session, timelines).acceptor.state.walSegmentSize / 1048576}MB`;
  } else throw new BadRequest(`Cannot show "${name}": a safekeeper has no such setting`);
  await session.sendRows([{ name, typeOid: TEXT }], [[value]], "SHOW");
}

async function timelineStatus(session: PgSession, timelines: Timelines): Promise<void> {
  const acceptor = namedTimeline(session, timelines)?.acceptor;
  const columns = [
    { name: "flush_lsn", typeOid: TEXT },
    { name: "commit_lsn", typeOid: TEXT },
  ];
  const rows = acceptor === undefined
    ? []
    : [[formatLsn(acceptor.flushLsn), formatLsn(acceptor.commitLsn)]];
  await session.sendRows(columns, rows, "TIMELINE_STATUS");
}

function checkPushOptions(query: string): void {
  const version = /proto_version\s+'?(\d+)'?/.exec(query)?.[1] ?? "2";
  if (version !== "3") {
    throw new BadRequest(`Cannot speak proposer protocol version ${version}: only 3 is supported`);
  }
}

/** SQLSTATE of PostgreSQL, too, for WAL that was removed. */
const UNDEFINED_FILE = "58P01";

const REPLICATION =
  /^START_REPLICATION(?:\s+SLOT\s+\S+)?(?:\s+PHYSICAL)?\s+([0-9A-F]+\/[0-9A-F]+)(?:\s+TIMELINE\s+\d+)?\s*(?:\((.*)\))?\s*;?$/i;

/** Parses START_REPLICATION. Throws BadRequest. */
function parseReplication(query: string, name: string): ReplicationRequest {
  const match = REPLICATION.exec(query);
  if (match === null) throw new BadRequest(`Cannot parse "${query}"`);
  const startLsn = parseLsn(match[1]!);
  const term = /term\s*=?\s*'?(\d+)'?/i.exec(match[2] ?? "")?.[1];
  return term === undefined ? { startLsn, name } : { startLsn, name, term: Number(term) };
}

async function startReplication(
  session: PgSession,
  timelines: Timelines,
  query: string,
): Promise<void> {
  const timeline = requireTimeline(session, timelines);
  const name = session.parameters.get("application_name") ?? "";
  const request = parseReplication(query, name);
  const copy = await session.beginCopyBoth(REPLY_LIMIT_BYTES);
  try {
    await streamWal(copy, timeline, request);
    await copy.finish();
    await session.commandComplete("START_REPLICATION");
  } catch (thrown) {
    if (isDisconnect(thrown)) return;
    log.info("{name}: stream of {timeline} ended: {message}", {
      name,
      timeline: timeline.timelineId,
      message: messageOf(thrown),
    });
    const code = thrown instanceof NotFound ? UNDEFINED_FILE : "XX000";
    await copy.fail(errorBody("ERROR", code, messageOf(thrown)));
  }
}
