/** Asks a page service for pages as the lazy file library does, and looks at what comes. */
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { COPIED, DATABASE, rowByte, type Tables, wordOfPage } from "./tables.ts";

const GET_PAGE = 2;
const PAGE = 102;
const REQUEST_BYTES = 42;

/** One connection. */
export class PageStream {
  readonly #copy: CopyBoth;
  readonly #lsn: Tables["lsn"];

  private constructor(copy: CopyBoth, lsn: Tables["lsn"]) {
    this.#copy = copy;
    this.#lsn = lsn;
  }

  static async connect(port: number, tables: Tables): Promise<PageStream> {
    const client = await PgClient.connect({ hostname: "127.0.0.1", port }, { user: "bench" });
    const stream = await client.copyBoth(`pagestream_v3 ${tables.tenantId} ${tables.timelineId}`);
    return new PageStream(stream, tables.lsn);
  }

  close(): void {
    this.#copy.close();
  }

  /** Reads blocks [0, pages) in runs, the next one asked for before the present one is read. */
  async scan(rel: number, pages: number, run: number): Promise<void> {
    await this.#ask(rel, 0, Math.min(run, pages));
    for (let first = 0; first < pages; first += run) {
      const next = Math.min(run, pages - first - run);
      if (next > 0) await this.#ask(rel, first + run, next);
      await this.#take(rel, first, Math.min(run, pages - first));
    }
  }

  /** Reads `count` blocks one after the other, which lie far from each other. */
  async single(rel: number, pages: number, count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      await this.one(rel, (Math.imul(n, 0x9e3779b1) >>> 0) % pages);
    }
  }

  /** Reads one block. */
  async one(rel: number, block: number): Promise<void> {
    await this.#ask(rel, block, 1);
    await this.#take(rel, block, 1);
  }

  async #ask(rel: number, first: number, count: number): Promise<void> {
    const copy = this.#copy;
    for (let block = first; block < first + count; block++) {
      const at = copy.reserve(REQUEST_BYTES);
      const view = copy.sendView;
      view.setUint8(at, GET_PAGE);
      view.setUint32(at + 1, rel);
      view.setUint32(at + 5, block);
      view.setUint32(at + 9, lsnHigh(this.#lsn));
      view.setUint32(at + 13, lsnLow(this.#lsn));
      view.setUint32(at + 17, lsnHigh(this.#lsn));
      view.setUint32(at + 21, lsnLow(this.#lsn));
      view.setUint32(at + 25, DATABASE.spc);
      view.setUint32(at + 29, DATABASE.db);
      view.setUint32(at + 33, rel);
      view.setUint8(at + 37, DATABASE.fork);
      view.setUint32(at + 38, block);
    }
    await copy.flush();
  }

  async #take(rel: number, first: number, count: number): Promise<void> {
    const copy = this.#copy;
    for (let block = first; block < first + count; block++) {
      if (!copy.tryNext() && !await copy.next()) throw new Error("the page service hung up");
      const { view, bodyStart, bodyEnd } = copy.received;
      const page = bodyStart + REQUEST_BYTES;
      const isRight = view.getUint8(bodyStart) === PAGE && bodyEnd - page === 8192 &&
        view.getUint32(bodyStart + 5) === block &&
        (rel === COPIED
          ? view.getUint8(bodyEnd - 1) === rowByte(block)
          : view.getUint32(page + 4096, true) === wordOfPage(block, 1024));
      if (!isRight) throw new Error(`block ${block} of relation ${rel} is not what was stored`);
    }
  }
}
