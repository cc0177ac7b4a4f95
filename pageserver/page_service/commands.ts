/**
 * The page service's connections: simple queries in PostgreSQL's protocol select what to do.
 *
 *   pagestream_v2 <tenant> <timeline>            pagestream_v3 likewise
 *   basebackup <tenant> <timeline> [<lsn>|latest] [--gzip] [--lazy] [--replica]
 *                                                --replica: for a standby, which follows the
 *                                                timeline, or stays at the LSN if one is given
 *   fullbackup <tenant> <timeline> [<lsn> [<prev lsn>]]
 *   lease lsn <tenant> <timeline> <lsn>
 *   set ...                                      accepted, no effect
 *
 * The first word is case-insensitive; anything unknown is an error.
 */
import type { PgSession } from "../../libs/pgwire/server.ts";
import { BadRequest, Forbidden, messageOf, NotFound } from "../../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId } from "../../libs/utils/id.ts";
import { logger } from "../../libs/utils/log.ts";
import { type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { Basebackup } from "../basebackup/basebackup.ts";
import { pageServiceMetrics } from "../metrics.ts";
import type { TenantManager } from "../repository/tenant_manager.ts";
import type { Timeline } from "../repository/timeline.ts";
import { servedTimeline } from "../served_timeline.ts";
import type { PageReader } from "./page_reader.ts";
import { servePagestream } from "./pagestream.ts";
import type { PagestreamVersion } from "./protocol.ts";

const log = logger("pageserver", "page_service");

/** How long a leased LSN stays readable. */
const LSN_LEASE_MS = 10 * 60 * 1000;
/** Longest message of a pagestream: a request has some forty bytes. */
const REQUEST_LIMIT_BYTES = 1024;
/** Type oid of text. */
const TEXT_OID = 25;
const BASEBACKUP_FLAGS = ["--gzip", "--lazy", "--replica"];

/** What the connections work on. */
interface PageServiceContext {
  readonly manager: TenantManager;
  readonly reader: PageReader;
  readonly waitLsnTimeoutMs: number;
  /** Aborted when the server stops. */
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  readonly unixNow: () => number;
}

/** Serves one connection until the client leaves. */
export async function servePageServiceSession(
  session: PgSession,
  context: PageServiceContext,
): Promise<void> {
  for (;;) {
    const query = await session.nextQuery();
    if (query === undefined) return;
    const words = query.trim().replace(/;$/, "").split(/\s+/);
    try {
      if (await runCommand(session, context, words)) return;
    } catch (thrown) {
      if (thrown instanceof StreamBroken) throw thrown;
      log.info("{query}: {message}", { query, message: messageOf(thrown) });
      await session.sendError(sqlState(thrown), messageOf(thrown));
    }
  }
}

/** An error after data was sent: there is no way to tell but to close the connection. */
class StreamBroken extends Error {}

function sqlState(thrown: unknown): string {
  if (thrown instanceof Forbidden) return "42501";
  if (thrown instanceof NotFound) return "02000";
  return thrown instanceof BadRequest || thrown instanceof SyntaxError ? "42601" : "XX000";
}

/** Runs one command; true if the connection has been used up. */
async function runCommand(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
): Promise<boolean> {
  switch (words[0]!.toLowerCase()) {
    case "pagestream_v2":
      await pagestream(session, context, words, 2);
      return true;
    case "pagestream_v3":
      await pagestream(session, context, words, 3);
      return true;
    case "basebackup":
      await basebackup(session, context, words);
      return false;
    case "fullbackup":
      await fullbackup(session, context, words);
      return false;
    case "lease":
      await lease(session, context, words);
      return false;
    case "set":
      await session.commandComplete("SELECT 1");
      return false;
    default:
      throw new BadRequest(`Cannot handle the command "${words[0]}"`);
  }
}

/** Every command finds its timeline here: nobody gets that of a tenant that is not open to him. */
function findTimeline(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
  at: number,
): Timeline {
  const [tenant, timeline] = [words[at], words[at + 1]];
  if (tenant === undefined || timeline === undefined) {
    throw new BadRequest(`Cannot handle "${words.join(" ")}": tenant and timeline are missing`);
  }
  const tenantId = parseTenantId(tenant);
  session.access.checkTenant(tenantId);
  return context.manager.tenant(tenantId).timeline(parseTimelineId(timeline));
}

function noMoreWords(words: string[], count: number): void {
  if (words.length > count) {
    throw new BadRequest(`Cannot handle "${words.join(" ")}": too many arguments`);
  }
}

async function pagestream(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
  version: PagestreamVersion,
): Promise<void> {
  const timeline = findTimeline(session, context, words, 1);
  noMoreWords(words, 3);
  pageServiceMetrics.commands.inc({ command: `PageStreamV${version}` });
  const { reader, waitLsnTimeoutMs, signal, now, pause } = context;
  const served = servedTimeline(timeline);
  const copy = await session.beginCopyBoth(REQUEST_LIMIT_BYTES);
  await servePagestream(copy, { served, reader, version, waitLsnTimeoutMs, signal, now, pause });
}

async function basebackup(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
): Promise<void> {
  const timeline = findTimeline(session, context, words, 1);
  const rest = words.slice(3);
  const flags = rest.filter((word) => word.startsWith("--"));
  const unknown = flags.find((flag, i) =>
    !BASEBACKUP_FLAGS.includes(flag) || flags.indexOf(flag) !== i
  );
  if (unknown !== undefined) throw new BadRequest(`Cannot take a base backup with "${unknown}"`);
  const lsns = rest.filter((word) => !word.startsWith("--"));
  noMoreWords(lsns, 1);
  pageServiceMetrics.commands.inc({ command: "Basebackup" });
  const lsn = lsnWord(lsns[0]);
  await sendBackup(session, context, timeline, {
    lsn,
    kind: flags.includes("--lazy") ? "lazy" : "full",
    gzip: flags.includes("--gzip"),
    standby: !flags.includes("--replica") ? undefined : lsn === undefined ? "follows" : "stays",
  });
}

async function fullbackup(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
): Promise<void> {
  const timeline = findTimeline(session, context, words, 1);
  noMoreWords(words, 5);
  pageServiceMetrics.commands.inc({ command: "Fullbackup" });
  await sendBackup(session, context, timeline, {
    lsn: lsnWord(words[3]),
    kind: "full",
    gzip: false,
  });
}

function lsnWord(word: string | undefined): Lsn | undefined {
  return word === undefined || word.toLowerCase() === "latest" ? undefined : parseLsn(word);
}

/** What kind of backup is wanted. */
interface WantedBackup {
  /** The newest if undefined. */
  readonly lsn: Lsn | undefined;
  readonly kind: "lazy" | "full";
  readonly gzip: boolean;
  readonly standby?: "follows" | "stays" | undefined;
}

async function sendBackup(
  session: PgSession,
  context: PageServiceContext,
  timeline: Timeline,
  backup: WantedBackup,
): Promise<void> {
  const { reader, waitLsnTimeoutMs, signal, now } = context;
  const { lsn: wanted, kind, standby } = backup;
  checkReadable(timeline, wanted);
  const began = now();
  await timeline.waitForLsn(wanted ?? timeline.startLsn, waitLsnTimeoutMs, signal);
  const lsn = wanted ?? timeline.lastRecordLsn;
  const archive = new Basebackup({ served: servedTimeline(timeline), reader, lsn, kind, standby });
  await session.beginCopyOut();
  try {
    if (backup.gzip) await sendCompressed(session, (sink) => archive.write(sink));
    else await archive.write((chunk) => session.copyData(chunk));
  } catch (thrown) {
    throw new StreamBroken(`Cannot complete a base backup: ${messageOf(thrown)}`);
  }
  await session.endCopyOut("COPY");
  pageServiceMetrics.basebackup.observe((now() - began) / 1000);
}

function checkReadable(timeline: Timeline, lsn: Lsn | undefined): void {
  if (lsn === undefined) return;
  if (lsn < timeline.startLsn || lsn % 8 !== 0) {
    throw new BadRequest(
      `Cannot take a base backup of timeline ${timeline.timelineId}: no record ends at this LSN`,
    );
  }
}

/** Runs `write` with a sink whose bytes leave gzipped. */
async function sendCompressed(
  session: PgSession,
  write: (sink: (chunk: Uint8Array<ArrayBuffer>) => Promise<void>) => Promise<void>,
): Promise<void> {
  const gzip = new CompressionStream("gzip");
  const sending = (async () => {
    for await (const chunk of gzip.readable) await session.copyData(chunk);
  })();
  sending.catch(() => {}); // thrown below, perhaps turns of the event loop later
  const writer = gzip.writable.getWriter();
  try {
    // The tar writer reuses its chunk: the compressor gets a copy to keep.
    await write((chunk) => writer.write(chunk.slice()));
    await writer.close();
  } catch (thrown) {
    await writer.abort(thrown).catch(() => {});
    await sending.catch(() => {});
    throw thrown;
  }
  await sending;
}

/**
 * Promises that an LSN stays readable. Nothing is ever collected before a timeline's start, so
 * every LSN that is readable now can be promised.
 */
async function lease(
  session: PgSession,
  context: PageServiceContext,
  words: string[],
): Promise<void> {
  if (words[1]?.toLowerCase() !== "lsn" || words[4] === undefined) {
    throw new BadRequest(`Cannot handle "${words.join(" ")}": expected lease lsn T TL LSN`);
  }
  const timeline = findTimeline(session, context, words, 2);
  noMoreWords(words, 5);
  const lsn = parseLsn(words[4]);
  pageServiceMetrics.commands.inc({ command: "LeaseLsn" });
  const readable = lsn >= timeline.startLsn && lsn <= timeline.lastRecordLsn;
  const validUntil = readable ? String(context.unixNow() + LSN_LEASE_MS) : null;
  await session.sendRows([{ name: "valid_until", typeOid: TEXT_OID }], [[validUntil]], "SELECT 1");
}
