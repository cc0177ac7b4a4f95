/**
 * Getting a timeline from the safekeepers that have it (pull_plan.ts has what is taken of it). The
 * WAL comes over the ordinary WAL service and goes into a directory beside, `<timeline>.pulling`,
 * the control file last; renaming the directory makes it a timeline. So a crash leaves nothing, or
 * all of it.
 */
import { receiveWal } from "../libs/pgwire/wal_stream.ts";
import { WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber } from "../libs/postgres/wal/segment.ts";
import {
  allMembers,
  isMember,
  type MembershipConfiguration,
  membershipOf,
} from "../libs/safekeeper_protocol/membership.ts";
import { fsyncDirectory, makeDirectory, writeAll } from "../libs/utils/durable.ts";
import { Conflict, messageOf, Unavailable } from "../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../libs/utils/id.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { settleWithoutStragglers } from "../libs/utils/stragglers.ts";
import { addLsn, formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";
import { SafekeeperClient, type TimelineStatus } from "./client.ts";
import { writeControlFile } from "./control_file.ts";
import { isAhead, type LogPosition } from "./peer_recovery.ts";
import { planPull, type PullPlan, type PullSource } from "./pull_plan.ts";

const log = logger("safekeeper", "pull");

/** Longest wait for what a member says of the timeline. */
const ANSWER_MS_MAX = 5000;
/** Once one has answered, the others have this long: one of them may hang. */
const STRAGGLERS_MS = 1000;
/** A member that says nothing for so long is given up. */
const SILENCE_MS_MAX = 30_000;

/** Name of the directory in which a timeline is made. */
export const PULLING_SUFFIX = ".pulling";

/** What to get, and from whom. */
export interface PullRequest {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** HTTP addresses of its members, host:port; one that answers is enough. */
  readonly httpHosts: readonly string[];
  /**
   * What is to be in force here; that of the member if that is newer. It says where the members'
   * WAL services are, also with generation 0, when it is not in force.
   */
  readonly membership: MembershipConfiguration;
}

/** What a pull does it with. */
interface PullContext {
  readonly nodeId: number;
  readonly hasRemote: boolean;
  /** For members that want one. */
  readonly token: TokenSource | undefined;
  /** Where the timeline is to be. */
  readonly directory: string;
  /** Throws if it may not be put there any more. */
  readonly checkWanted: () => void;
}

/** Somebody who has the timeline. */
interface Found {
  readonly host: string;
  readonly walService: { readonly hostname: string; readonly port: number };
  readonly log: LogPosition;
  readonly source: PullSource;
}

/**
 * Puts the timeline into `directory`, durably; returns who it is from. Throws Unavailable if no
 * member has it, and what copying throws; then nothing is there.
 */
export async function pullTimeline(request: PullRequest, context: PullContext): Promise<string> {
  const { host, walService, source } = await newest(request, context.token);
  const generation = source.membership.generation;
  const membership = generation > request.membership.generation
    ? source.membership
    : request.membership;
  if (!isMember(membership, context.nodeId)) {
    throw new Conflict(
      `Cannot pull timeline ${request.timelineId}: safekeeper ${context.nodeId} is not a member ` +
        `of generation ${membership.generation}`,
    );
  }
  const plan = planPull(source, membership, context.hasRemote);
  const temporary = context.directory + PULLING_SUFFIX;
  ifThere(() => Deno.removeSync(temporary, { recursive: true }));
  makeDirectory(temporary);
  const begun = performance.now();
  const asking = { name: `safekeeper_${context.nodeId}`, token: context.token };
  try {
    await copyWal(plan, walService, asking, temporary, context.checkWanted);
    writeControlFile(temporary, plan.state);
    fsyncDirectory(temporary);
    context.checkWanted();
  } catch (thrown) {
    ifThere(() => Deno.removeSync(temporary, { recursive: true })); // the disk may be full
    throw thrown;
  }
  // What is there has no control file: it is no timeline
  ifThere(() => Deno.removeSync(context.directory, { recursive: true }));
  Deno.renameSync(temporary, context.directory);
  fsyncDirectory(context.directory.slice(0, context.directory.lastIndexOf("/")));
  log.info("{timeline} was pulled from {host}: WAL from {from} to {to} in {ms} ms", {
    timeline: request.timelineId,
    host,
    from: formatLsn(plan.copyFrom),
    to: formatLsn(plan.state.commitLsn),
    ms: Math.round(performance.now() - begun),
  });
  return host;
}

/** The member with the newest log. */
async function newest(request: PullRequest, token: TokenSource | undefined): Promise<Found> {
  const answers = await settleWithoutStragglers(
    request.httpHosts.map((host) => ask(host, request, token)),
    1,
    STRAGGLERS_MS,
  );
  const found = answers.filter((answer) => answer.status === "fulfilled")
    .map((answer) => answer.value);
  if (found.length > 0) return found.reduce((a, b) => isAhead(b.log, a.log) ? b : a);
  const problems = answers.map((answer, i) =>
    `${request.httpHosts[i]}: ${answer.status === "rejected" ? messageOf(answer.reason) : ""}`
  );
  throw new Unavailable(
    `Cannot pull timeline ${request.timelineId}: no safekeeper has it (${problems.join("; ")})`,
  );
}

async function ask(
  host: string,
  request: PullRequest,
  token: TokenSource | undefined,
): Promise<Found> {
  const client = new SafekeeperClient(host, token, ANSWER_MS_MAX);
  const [{ id }, status] = await Promise.all([
    client.status(),
    client.timelineStatus(request.tenantId, request.timelineId),
  ]);
  const member = allMembers(request.membership).find((listed) => listed.id === id);
  if (member === undefined) throw new Conflict(`safekeeper ${id} is not a member`);
  const { term, epoch } = status.acceptor_state;
  return {
    host,
    walService: { hostname: member.host, port: member.pgPort },
    log: { term, lastLogTerm: epoch, flushLsn: parseLsn(status.flush_lsn) },
    source: sourceOf(status),
  };
}

function sourceOf(status: TimelineStatus): PullSource {
  const { acceptor_state, pg_info, eviction_state } = status;
  return {
    tenantId: parseTenantId(status.tenant_id),
    timelineId: parseTimelineId(status.timeline_id),
    membership: membershipOf(status.mconf),
    term: acceptor_state.term,
    termHistory: acceptor_state.term_history
      .map(({ term, lsn }) => ({ term, lsn: parseLsn(lsn) })),
    pgVersionNum: pg_info.pg_version,
    systemId: BigInt(pg_info.system_id),
    walSegmentSize: pg_info.wal_seg_size,
    timelineStartLsn: parseLsn(status.timeline_start_lsn),
    localStartLsn: parseLsn(status.local_start_lsn),
    commitLsn: parseLsn(status.commit_lsn),
    peerHorizonLsn: parseLsn(status.peer_horizon_lsn),
    remoteConsistentLsn: parseLsn(status.remote_consistent_lsn),
    backupLsn: parseLsn(status.backup_lsn),
    offloadedLsn: eviction_state === "Present" ? undefined : parseLsn(eviction_state.Offloaded),
    firstLsn: parseLsn(status.first_lsn),
  };
}

/** Copies the committed WAL of a plan into segment files, durably. */
async function copyWal(
  { state, copyFrom }: PullPlan,
  walService: Found["walService"],
  asking: { readonly name: string; readonly token: TokenSource | undefined },
  directory: string,
  checkWanted: () => void,
): Promise<void> {
  const { tenantId, timelineId, commitLsn, walSegmentSize } = state;
  let at = copyFrom;
  if (at >= commitLsn) return;
  const files = new SegmentFiles(directory, walSegmentSize);
  try {
    await receiveWal({
      ...walService,
      ...asking,
      tenantId,
      timelineId,
      from: at,
      silenceMsMax: SILENCE_MS_MAX,
      goesOn: () => at < commitLsn,
      take: (wal, endLsn) => {
        checkWanted();
        const wanted = Math.min(wal.length, commitLsn - at);
        files.write(at, wal.subarray(0, wanted));
        at = endLsn;
      },
    });
  } finally {
    files.close();
  }
}

/** Writes WAL in order into segments of full size; each is durable when the next one begins. */
class SegmentFiles {
  readonly #directory: string;
  readonly #segmentSize: number;
  #path = "";
  #file: Deno.FsFile | undefined;

  constructor(directory: string, segmentSize: number) {
    this.#directory = directory;
    this.#segmentSize = segmentSize;
  }

  write(lsn: Lsn, wal: Uint8Array): void {
    for (let done = 0; done < wal.length;) {
      const at = addLsn(lsn, done);
      const offset = at % this.#segmentSize;
      const count = Math.min(wal.length - done, this.#segmentSize - offset);
      if (this.#file === undefined) this.#begin(at);
      writeAll(this.#file!, wal.subarray(done, done + count));
      done += count;
      if (offset + count === this.#segmentSize) {
        this.close();
        Deno.renameSync(`${this.#path}.partial`, this.#path);
      }
    }
  }

  #begin(lsn: Lsn): void {
    const segment = segmentNumber(lsn, this.#segmentSize);
    this.#path = `${this.#directory}/${segmentName(WAL_TIMELINE_ID, segment, this.#segmentSize)}`;
    const options = { read: true, write: true, createNew: true };
    this.#file = Deno.openSync(`${this.#path}.partial`, options);
    this.#file.truncateSync(this.#segmentSize);
    this.#file.seekSync(lsn % this.#segmentSize, Deno.SeekMode.Start);
  }

  /** Makes the last one durable. */
  close(): void {
    try {
      this.#file?.syncSync();
    } finally {
      this.#file?.close();
      this.#file = undefined;
    }
  }
}
