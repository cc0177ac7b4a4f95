/**
 * Where `neon wal dump` and `neon wal stats` get WAL from: segment files, or a safekeeper of a
 * branch, asked with START_REPLICATION for what is committed now.
 */
import { PgClient } from "../libs/pgwire/client.ts";
import { readSenderMessage } from "../libs/pgwire/replication.ts";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { type PgVersion, pgVersion } from "../libs/postgres/versions.ts";
import { firstRecordOnPage } from "../libs/postgres/wal/page_header.ts";
import { RecordCursor } from "../libs/postgres/wal/record_cursor.ts";
import { WalStreamDecoder } from "../libs/postgres/wal/stream_decoder.ts";
import { BadRequest, messageOf, NotFound, Unavailable } from "../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { addLsn, formatLsn, type Lsn, maxLsn, minLsn, parseLsn } from "../libs/utils/lsn.ts";
import { type WalEnd, WalFiles } from "../libs/wal_files/wal_files.ts";
import type { TimelineStatus } from "../safekeeper/client.ts";
import { safekeeperClient } from "./control_plane/clients.ts";
import { LOOPBACK, type SafekeeperConfig } from "./control_plane/config.ts";
import { type Environment, timelineOfBranch } from "./control_plane/environment.ts";
import { commandToken } from "./control_plane/tokens.ts";
import { walPosition } from "./wal_options.ts";

/** WAL to read once. */
export interface WalSource {
  readonly version: PgVersion;
  /** The position that the user wants to read to. */
  readonly end: Lsn | undefined;
  /** Shows each record to `visit` until it returns false. */
  read(visit: (cursor: RecordCursor) => boolean): Promise<WalEnd>;
}

/** Positions as the user gave them. */
interface RangeText {
  readonly start: string | undefined;
  readonly end: string | undefined;
}

function rangeOf(text: RangeText, segmentSize: number) {
  return {
    start: text.start === undefined ? undefined : walPosition(text.start, segmentSize, false),
    end: text.end === undefined ? undefined : walPosition(text.end, segmentSize, true),
  };
}

/** WAL of a segment file or of a directory. */
export function fileWal(path: string, text: RangeText): WalSource {
  const files = ifThere(() => WalFiles.open(path));
  if (files === undefined) {
    throw new NotFound(`Cannot read WAL from "${path}": there is no such file or directory`);
  }
  const range = rangeOf(text, files.segmentSize);
  return {
    version: files.version,
    end: range.end,
    read: (visit) => Promise.resolve(files.read(range, visit)),
  };
}

/** The first safekeeper that answers for the timeline. */
async function findSafekeeper(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<{ config: SafekeeperConfig; status: TimelineStatus }> {
  const failures: string[] = [];
  for (const config of env.config.safekeepers) {
    try {
      return {
        config,
        status: await safekeeperClient(env, config).timelineStatus(tenant, timeline),
      };
    } catch (thrown) {
      failures.push(messageOf(thrown));
    }
  }
  throw new Unavailable(`Cannot read the WAL of timeline ${timeline}: ${failures.join("; ")}`);
}

/** WAL of a branch, from where the safekeepers have it on to what is committed now. */
export async function branchWal(
  env: Environment,
  tenant: TenantId,
  branch: string,
  text: RangeText,
): Promise<WalSource> {
  const timeline = timelineOfBranch(env, tenant, branch);
  const { config, status } = await findSafekeeper(env, tenant, timeline);
  const segmentSize = status.pg_info.wal_seg_size;
  const { pg_version } = status.pg_info;
  const version = pgVersion(pg_version > 100 ? Math.floor(pg_version / 10000) : pg_version);
  const local = parseLsn(status.local_start_lsn);
  const range = rangeOf(text, segmentSize);
  const wanted = maxLsn(range.start ?? local, local);
  const committed = parseLsn(status.commit_lsn);
  if (wanted > committed) {
    throw new BadRequest(
      `Cannot read WAL from ${formatLsn(wanted)}: branch ${branch} is at ${formatLsn(committed)}`,
    );
  }
  const end = minLsn(range.end ?? committed, committed);
  const options = `-c timeline_id=${timeline} tenant_id=${tenant}`;
  return {
    version,
    end: range.end,
    read: async (visit) => {
      const startup = {
        user: "neon",
        database: "replication",
        replication: "true",
        application_name: "neon wal",
        options,
      };
      const client = await PgClient.connect(
        { hostname: LOOPBACK, port: config.pg_port },
        startup,
        undefined,
        commandToken(env, { scope: "tenant", tenant_id: tenant }),
      );
      try {
        // Where a record starts is known from a page's header, or from where the WAL here begins.
        const from = maxLsn(addLsn(wanted, -(wanted % PAGE_SIZE)), local);
        const first = from === local ? local : undefined;
        const stream = walBytes(client, from, end);
        return await readStream(stream, { version, segmentSize, from, first, wanted, end }, visit);
      } finally {
        client.close();
      }
    },
  };
}

/** WAL in pieces, from `from` to `end` at least. */
async function* walBytes(client: PgClient, from: Lsn, end: Lsn): AsyncGenerator<Uint8Array> {
  if (from >= end) return;
  const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(from)}`);
  for (let at = from; at < end;) {
    const payload = await copy.receive();
    if (payload === undefined) throw new Unavailable("Cannot read WAL: the safekeeper hung up");
    const message = readSenderMessage(payload);
    if (message.kind !== "xlogData") continue;
    yield message.wal;
    at = addLsn(message.start, message.wal.length);
  }
}

interface StreamOptions {
  readonly version: PgVersion;
  readonly segmentSize: number;
  /** Where the stream begins: a page boundary, unless a record starts there. */
  readonly from: Lsn;
  /** A known start of a record at `from`. */
  readonly first: Lsn | undefined;
  /** Records before are not shown. */
  readonly wanted: Lsn;
  readonly end: Lsn;
}

async function readStream(
  stream: AsyncIterable<Uint8Array>,
  options: StreamOptions,
  visit: (cursor: RecordCursor) => boolean,
): Promise<WalEnd> {
  const { version, segmentSize, from, wanted, end } = options;
  const cursor = new RecordCursor();
  let decoder: WalStreamDecoder | undefined;
  /** What came before it was known where the first record starts. */
  let held = new Uint8Array(0);
  let last = from;
  for await (const wal of stream) {
    if (decoder !== undefined) decoder.feed(wal);
    else {
      held = concat(held, wal);
      const first = options.first ?? firstRecordOnPage(held, from, version, segmentSize);
      if (first === undefined || from + held.length < first) continue;
      decoder = new WalStreamDecoder(first, segmentSize, version);
      decoder.feed(held.subarray(first - from));
    }
    while (decoder.next(cursor)) {
      if (cursor.endLsn > end) return { lsn: last, reason: undefined };
      last = cursor.endLsn;
      if (cursor.lsn >= wanted && !visit(cursor)) return { lsn: last, reason: undefined };
    }
  }
  return { lsn: last, reason: undefined };
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
