/**
 * START_WAL_PUSH: the connection of a proposer. Reads its messages, hands them to the timeline, and
 * sends what comes back. All messages that have arrived are handled before one sync is started for
 * them, appends as one where they continue each other; while it runs the connection is read on.
 */
import type { CopyBoth } from "../libs/pgwire/copy_both.ts";
import { errorBody } from "../libs/pgwire/messages.ts";
import { isDisconnect, type PgAccess } from "../libs/pgwire/server.ts";
import {
  type AcceptorMessage,
  APPEND_RESPONSE_BYTES,
  type AppendRequest,
  decodeProposerMessage,
  writeAcceptorMessage,
  writeAppendResponse,
} from "../libs/safekeeper_protocol/messages.ts";
import { ByteWriter } from "../libs/utils/bytes.ts";
import { BadRequest, Forbidden, messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { Turns } from "../libs/utils/turns.ts";
import { joinAppends } from "./joined_appends.ts";
import { connectionCount, refusedMessages } from "./metrics.ts";
import type { Proposer, Timeline } from "./timeline.ts";
import type { Timelines } from "./timelines.ts";

const log = logger("safekeeper", "wal_push");

/**
 * A proposer speaks at least once a second; the connection of one that is silent for so long is
 * closed, so that nothing waits for it, peers that could help above all.
 */
const SILENCE_MS_MAX = 30_000;

class ProposerConnection implements Proposer {
  feedbackSeen = 0;
  readonly #copy: CopyBoth;
  readonly #writer = new ByteWriter("big");

  constructor(copy: CopyBoth) {
    this.#copy = copy;
  }

  send(message: AcceptorMessage): void {
    try {
      this.#queue(message);
      this.#copy.push();
    } catch (thrown) {
      // It does not read what we send, or is gone, which the reading side notices as well
      this.fail(messageOf(thrown));
    }
  }

  #queue(message: AcceptorMessage): void {
    if (message.kind === "append" && message.feedback === undefined) {
      const at = this.#copy.reserve(APPEND_RESPONSE_BYTES); // first: it may replace the view
      writeAppendResponse(this.#copy.sendView, at, message);
      return;
    }
    this.#writer.reset();
    writeAcceptorMessage(this.#writer, message);
    this.#copy.queue(this.#writer.bytes());
  }

  fail(why: string): void {
    this.#copy.fail(errorBody("ERROR", "XX000", why)).catch(() => {}).finally(() =>
      this.#copy.close()
    );
  }
}

/** Serves a proposer until it leaves, is refused, or the timeline is closed. */
export async function serveProposer(
  copy: CopyBoth,
  timelines: Timelines,
  access: PgAccess,
): Promise<void> {
  const proposer = new ProposerConnection(copy);
  let timeline: Timeline | undefined;
  connectionCount.inc({ role: "proposer" });
  try {
    const first = await watched(proposer, () => copy.receive());
    if (first === undefined) return;
    const greeting = decodeProposerMessage(first);
    if (greeting.kind !== "greeting") {
      throw new BadRequest(`Cannot start with a message of kind "${greeting.kind}": greet first`);
    }
    access.checkTenant(greeting.tenantId);
    timeline = timelines.get(greeting.tenantId, greeting.timelineId);
    timeline.proposers.add(proposer);
    await timeline.available();
    timeline.handle(greeting, proposer);
    await watched(proposer, (heard) => handleAll(copy, timeline!, proposer, heard));
  } catch (thrown) {
    if (isDisconnect(thrown)) return;
    refusedMessages.inc();
    const name = timeline?.timelineId ?? "unknown timeline";
    log.warning("{name}: {message}", { name, message: messageOf(thrown) });
    const code = thrown instanceof Forbidden ? "42501" : "XX000";
    await copy.fail(errorBody("ERROR", code, messageOf(thrown)));
  } finally {
    connectionCount.dec({ role: "proposer" });
    timeline?.leave(proposer);
  }
}

/** Ends the connection if `heard` is not called for too long while the work is under way. */
async function watched<T>(
  proposer: Proposer,
  work: (heard: () => void) => Promise<T>,
): Promise<T> {
  let isSilent = false;
  const watch = setInterval(() => {
    if (isSilent) proposer.fail(`no message for ${SILENCE_MS_MAX / 1000} s`);
    isSilent = true;
  }, SILENCE_MS_MAX);
  try {
    return await work(() => isSilent = false);
  } finally {
    clearInterval(watch);
  }
}

async function handleAll(
  copy: CopyBoth,
  timeline: Timeline,
  proposer: Proposer,
  heard: () => void,
): Promise<void> {
  const turns = new Turns();
  /** In the receive buffer: handled, and its WAL written, before more is received. */
  let append: AppendRequest | undefined;
  const handleAppend = () => {
    if (append !== undefined) timeline.handle(append, proposer);
    append = undefined;
  };
  for (;;) {
    if (!copy.tryNext()) {
      handleAppend();
      timeline.kick();
      if (!await copy.more()) return;
      heard();
      continue;
    }
    const { bytes, bodyStart, bodyEnd } = copy.received;
    const message = decodeProposerMessage(bytes, bodyStart, bodyEnd);
    const isAppend = message.kind === "append";
    const both = isAppend && append !== undefined ? joinAppends(bytes, append, message) : undefined;
    if (both === undefined) handleAppend();
    if (isAppend) append = both ?? message;
    else timeline.handle(message, proposer);
    const turn = turns.after(bodyEnd - bodyStart);
    if (turn === undefined) continue;
    handleAppend();
    timeline.kick();
    await turn;
  }
}
