/**
 * One pagestream connection: reads requests, answers them in order.
 *
 * Everything that has already arrived is handled as one batch (up to BATCH_REQUESTS) and answered
 * by one write, so a client that pipelines pays for one system call, not for one each. While the
 * socket takes a batch, the next one is worked on. Neighbouring blocks of one relation share the
 * look-up of the relation.
 *
 * Which version is read: a client promises that the page has not changed in (not_modified_since,
 * request_lsn]. If not_modified_since has not arrived yet, we wait for it and read there; otherwise
 * we read at the older of request_lsn and what has arrived, without waiting.
 */
import { DEFAULT_TABLESPACE, FORK_MAIN, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { formatRel, type RelTag } from "../../libs/postgres/relation.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { BadRequest, messageOf, NotFound } from "../../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { NO_OBJECT } from "../repository/key_interner.ts";
import { Postponed } from "../repository/postponed.ts";
import { ABSENT } from "../relations.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { pageServiceMetrics } from "../metrics.ts";
import { checkBlock, type PageReader } from "./page_reader.ts";
import {
  PagestreamRequest,
  type PagestreamVersion,
  queueBlocks,
  queueDatabaseSize,
  queueError,
  queueExists,
  RequestTag,
  reservePage,
  reserveSlruSegment,
} from "./protocol.ts";

/** Requests answered by one write: about a millisecond of work, 256 KiB of answers. */
const BATCH_REQUESTS = 32;
/** Where the answers to a batch are sent early, because segments may be large. */
const QUEUED_BYTES_MAX = 1024 * 1024;
/** Longest stretch of work between two turns of the event loop. */
const SLICE_MS = 1;
/** Requests between two looks at the clock. */
const REQUESTS_PER_CLOCK = 8;
const SLRU_KIND_MAX = 3;

/** What a connection needs. */
interface PagestreamContext {
  readonly served: ServedTimeline;
  readonly reader: PageReader;
  readonly version: PagestreamVersion;
  /** Longest wait for an LSN. */
  readonly waitLsnTimeoutMs: number;
  /** Aborted when the server stops. */
  readonly signal: AbortSignal;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** Serves one connection until the client leaves. */
export async function servePagestream(copy: CopyBoth, context: PagestreamContext): Promise<void> {
  await new Pagestream(copy, context).run();
}

class Pagestream {
  readonly #copy: CopyBoth;
  readonly #context: PagestreamContext;
  readonly #request = new PagestreamRequest();
  // The relation of the last request, and its size as of #sizeLsn.
  readonly #tag: RelTag = { spc: 0, db: 0, rel: 0, fork: FORK_MAIN };
  #object = NO_OBJECT;
  #blocks = ABSENT;
  #sizeLsn: Lsn = INVALID_LSN;
  /** Requests answered since #batchBegan, by tag. */
  readonly #answered = new Uint32Array(pageServiceMetrics.query.length);
  #batchBegan = 0;

  constructor(copy: CopyBoth, context: PagestreamContext) {
    this.#copy = copy;
    this.#context = context;
  }

  async run(): Promise<void> {
    const { timeline } = this.#context.served;
    const { now, pause } = this.#context;
    // A branch reads its ancestors' pages: they must have arrived up to the branch points.
    await this.#wait(timeline.startLsn);
    let turnBegan = now();
    while (await this.#copy.next()) {
      await this.#answerBatch();
      if (now() - turnBegan < SLICE_MS) continue;
      await pause();
      turnBegan = now();
    }
    await this.#copy.flush();
  }

  /** Answers what has arrived, beginning with the request that was just received. */
  async #answerBatch(): Promise<void> {
    const { now } = this.#context;
    const copy = this.#copy;
    this.#batchBegan = now();
    let count = 0;
    do {
      count++;
      this.#request.decode(this.#context.version, copy.received);
      const late = this.#handle();
      if (late !== undefined) await late;
      if (count % REQUESTS_PER_CLOCK === 0 && now() - this.#batchBegan > SLICE_MS) break;
    } while (
      count < BATCH_REQUESTS && copy.queuedBytes <= QUEUED_BYTES_MAX && copy.tryNext()
    );
    this.#observe();
    pageServiceMetrics.batchSize.observe(count);
    await copy.send();
  }

  /**
   * Answers the request that was decoded; what goes wrong with it is the answer. Returns a promise
   * only where the answer has to wait.
   */
  #handle(): Promise<void> | undefined {
    const request = this.#request;
    const { served } = this.#context;
    try {
      checkLsns(request);
      const { lastRecordLsn } = served.timeline;
      if (request.notModifiedSince > lastRecordLsn) return this.#answerLate(request);
      this.#answer(request, Math.min(request.requestLsn, lastRecordLsn) as Lsn, true);
    } catch (thrown) {
      if (thrown instanceof Postponed) return this.#answerPostponed(thrown.ready);
      this.#refuse(request, thrown);
    }
    this.#answered[request.tag]!++;
    return undefined;
  }

  /** Answers the present request when what it needs has come from the disk. */
  async #answerPostponed(ready: Promise<void>): Promise<void> {
    this.#observe();
    await this.#copy.send();
    await ready;
    await this.#handle();
  }

  /** Answers when what is not to be missed has arrived. */
  async #answerLate(request: PagestreamRequest): Promise<void> {
    this.#observe(); // those before it did not wait
    await this.#copy.flush();
    try {
      await this.#wait(request.notModifiedSince);
      this.#answer(request, request.notModifiedSince, false);
    } catch (thrown) {
      this.#refuse(request, thrown);
    }
    this.#answered[request.tag]!++;
    this.#observe();
  }

  #refuse(request: PagestreamRequest, thrown: unknown): void {
    pageServiceMetrics.errors.inc();
    queueError(this.#copy, request, messageOf(thrown));
  }

  /** Notes what the requests since the last time took: the same for each, as they share the work. */
  #observe(): void {
    const ended = this.#context.now();
    const answered = this.#answered;
    let all = 0;
    for (let tag = 0; tag < answered.length; tag++) all += answered[tag]!;
    const eachSeconds = (ended - this.#batchBegan) / 1000 / all;
    this.#batchBegan = ended;
    for (let tag = 0; tag < answered.length; tag++) {
      const count = answered[tag]!;
      if (count > 0) pageServiceMetrics.query[tag]!.observe(eachSeconds, count);
      answered[tag] = 0;
    }
  }

  async #wait(lsn: Lsn): Promise<void> {
    const { served, waitLsnTimeoutMs, signal, now } = this.#context;
    const began = now();
    await served.timeline.waitForLsn(lsn, waitLsnTimeoutMs, signal);
    pageServiceMetrics.waitLsn.observe((now() - began) / 1000);
  }

  /** Throws Postponed, if it may, before it has queued anything. */
  #answer(request: PagestreamRequest, lsn: Lsn, mayPostpone: boolean): void {
    switch (request.tag) {
      case RequestTag.getPage:
        return this.#getPage(request, lsn, mayPostpone);
      case RequestTag.exists:
        this.#lookUp(request, lsn);
        return queueExists(this.#copy, request, this.#blocks !== ABSENT);
      case RequestTag.nblocks:
        this.#lookUp(request, lsn);
        checkBlocks(formatRel(this.#tag), this.#blocks, lsn);
        return queueBlocks(this.#copy, request, this.#blocks);
      case RequestTag.databaseSize: {
        const { relations } = this.#context.served;
        const size = relations.databaseSizeBytes(DEFAULT_TABLESPACE, request.db, lsn, PAGE_SIZE);
        return queueDatabaseSize(this.#copy, request, size);
      }
      default:
        return this.#getSlruSegment(request, lsn);
    }
  }

  /** Makes #tag, #object and #blocks those of the request's relation at `lsn`. */
  #lookUp(request: PagestreamRequest, lsn: Lsn): void {
    const tag = this.#tag;
    const same = tag.rel === request.rel && tag.fork === request.fork && tag.db === request.db &&
      tag.spc === request.spc;
    if (same && this.#sizeLsn === lsn && this.#object >= 0) return;
    if (request.rel === 0) throw new BadRequest("Cannot read relation 0: there is no such thing");
    const { relations } = this.#context.served;
    // Should a step fail, the next request must not take what is left of the relation before
    this.#sizeLsn = INVALID_LSN;
    if (!same || this.#object < 0) {
      this.#object = NO_OBJECT;
      tag.spc = request.spc;
      tag.db = request.db;
      tag.rel = request.rel;
      tag.fork = request.fork;
      this.#object = relations.relationAt(tag, lsn);
    }
    this.#blocks = relations.blocksAt(this.#object, lsn);
    this.#sizeLsn = lsn;
  }

  #getPage(request: PagestreamRequest, lsn: Lsn, mayPostpone: boolean): void {
    this.#lookUp(request, lsn);
    const { served, reader } = this.#context;
    if (request.block >= this.#blocks) {
      checkBlock(formatRel(this.#tag), this.#blocks, request.block, lsn);
    }
    const { block } = request;
    const page = reader.relationPage(served, this.#tag, this.#object, block, lsn, mayPostpone);
    const at = reservePage(this.#copy, request, PAGE_SIZE);
    this.#copy.sendBytes.set(page.bytes.subarray(page.offset, page.offset + PAGE_SIZE), at);
  }

  #getSlruSegment(request: PagestreamRequest, lsn: Lsn): void {
    const { served, reader } = this.#context;
    const { slruKind, segment } = request;
    if (slruKind > SLRU_KIND_MAX) {
      throw new BadRequest(`Cannot read an SLRU segment: there is no SLRU kind ${slruKind}`);
    }
    const { relations } = served;
    const blocks = relations.blocksAt(relations.slruAt(slruKind, segment, lsn), lsn);
    const name = `segment ${segment} of SLRU ${slruKind}`;
    checkBlocks(name, blocks, lsn);
    const pages = new Uint8Array(blocks * PAGE_SIZE);
    for (let block = 0; block < blocks; block++) {
      const page = reader.slruPage(served, slruKind, segment, block, lsn);
      pages.set(page.bytes.subarray(page.offset, page.offset + PAGE_SIZE), block * PAGE_SIZE);
    }
    const at = reserveSlruSegment(this.#copy, request, blocks, pages.length);
    this.#copy.sendBytes.set(pages, at);
  }
}

function checkLsns(request: PagestreamRequest): void {
  if (request.requestLsn === 0) throw new BadRequest("Cannot read at LSN 0/0");
  if (request.requestLsn < request.notModifiedSince) {
    throw new BadRequest(
      `Cannot read at ${formatLsn(request.requestLsn as Lsn)}: it is below not_modified_since ` +
        formatLsn(request.notModifiedSince),
    );
  }
}

function checkBlocks(name: string, blocks: number, lsn: Lsn): void {
  if (blocks === ABSENT) {
    throw new NotFound(`Cannot read ${name} at ${formatLsn(lsn)}: it does not exist`);
  }
}
