/**
 * The page service as an eager endpoint asks it: runs of pages of one relation fork, all as of one
 * LSN, many requests under way at a time. Pagestream version 3, inside the CopyData messages of
 * COPY BOTH; all integers big endian:
 *
 *   GetPage   u8 2 | u64 request id | u64 request LSN | u64 not modified since
 *             | u32 tablespace, database, relation | u8 fork | u32 block
 *   answer    u8 102 | the request after its tag | 8192 bytes
 *   error     u8 103 | request id and both LSNs | text, NUL
 *
 * Answers come in the order of the requests, and each has to echo its own; any other is Corrupt.
 */
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";
import { Corrupt, Unavailable } from "../../libs/utils/errors.ts";
import { type Lsn, lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";

const GET_PAGE = 2;
const PAGE = 102;
const ERROR = 103;
const REQUEST_BYTES = 42;
/** Tag, request id and both LSNs. */
const ERROR_HEADER_BYTES = 25;

/** Consecutive blocks of a fork. */
export interface PageRun {
  readonly tag: RelTag;
  readonly firstBlock: number;
  readonly pages: number;
}

/** The page service has said that it cannot give a page: asking again is of no use. */
export class PageRefused extends Error {
  override readonly name: string = "PageRefused";
}

/** One stream of requests and answers. */
export class PageStream {
  readonly #copy: CopyBoth;
  readonly #lsn: Lsn;
  readonly #expected = new DataView(new ArrayBuffer(REQUEST_BYTES - 1));
  #asked = 0;
  #answered = 0;

  constructor(copy: CopyBoth, lsn: Lsn) {
    this.#copy = copy;
    this.#lsn = lsn;
  }

  /** Asks for a run; flush() sends it. */
  ask(run: PageRun): void {
    for (let i = 0; i < run.pages; i++) {
      const at = this.#copy.reserve(REQUEST_BYTES);
      this.#copy.sendView.setUint8(at, GET_PAGE);
      this.#writeEcho(this.#copy.sendView, at + 1, ++this.#asked, run, i);
    }
  }

  flush(): Promise<void> {
    return this.#copy.flush();
  }

  /** The pages of the run that was asked for first and not yet taken, into the start of `into`. */
  async take(run: PageRun, into: Uint8Array): Promise<void> {
    for (let i = 0; i < run.pages; i++) {
      const answer = await this.#next(run, i);
      if (answer[0] === ERROR) {
        const text = new TextDecoder().decode(answer.subarray(ERROR_HEADER_BYTES));
        throw new PageRefused(text.replace(/\0.*$/s, ""));
      }
      into.set(answer.subarray(REQUEST_BYTES), i * PAGE_SIZE);
    }
  }

  /** The next page, of a run of which others were taken so before; false if it was refused. */
  async takeOne(page: PageRun, into: Uint8Array): Promise<boolean> {
    const answer = await this.#next(page, 0);
    if (answer[0] === ERROR) return false;
    into.set(answer.subarray(REQUEST_BYTES));
    return true;
  }

  /** The next answer, which is to this page of a run. */
  async #next(run: PageRun, page: number): Promise<Uint8Array> {
    const answer = await this.#copy.receive();
    if (answer === undefined) throw new Unavailable("the page service ended the stream");
    this.#writeEcho(this.#expected, 0, ++this.#answered, run, page);
    if (answer[0] !== ERROR && !isAnswerTo(this.#expected, answer)) {
      throw new Corrupt("Cannot use an answer of the page service: it is to another request");
    }
    return answer;
  }

  /** A request after its tag. */
  #writeEcho(view: DataView, at: number, id: number, run: PageRun, page: number): void {
    const { spc, db, rel, fork } = run.tag;
    view.setUint32(at, Math.floor(id / 2 ** 32));
    view.setUint32(at + 4, id >>> 0);
    for (const offset of [8, 16]) {
      view.setUint32(at + offset, lsnHigh(this.#lsn));
      view.setUint32(at + offset + 4, lsnLow(this.#lsn));
    }
    view.setUint32(at + 24, spc);
    view.setUint32(at + 28, db);
    view.setUint32(at + 32, rel);
    view.setUint8(at + 36, fork);
    view.setUint32(at + 37, run.firstBlock + page);
  }
}

function isAnswerTo(expected: DataView, answer: Uint8Array): boolean {
  if (answer[0] !== PAGE || answer.length !== REQUEST_BYTES + PAGE_SIZE) return false;
  for (let i = 0; i < REQUEST_BYTES - 1; i++) {
    if (answer[1 + i] !== expected.getUint8(i)) return false;
  }
  return true;
}
