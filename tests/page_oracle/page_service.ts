/**
 * The page service as a client sees it: pagestream version 3 (pageserver/page_service/protocol.ts),
 * everything as of one LSN.
 */
import assert from "node:assert/strict";
import { decodeLazyFilesMap, type LazyFilesMap } from "../../libs/basebackup/lazy_files_map.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";
import { parseAddress } from "../../libs/utils/address.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { formatLsn, type Lsn, lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { TarReader } from "../../libs/utils/tar.ts";

const [EXISTS, NBLOCKS, GET_PAGE, GET_SLRU_SEGMENT] = [0, 1, 2, 4];
const ERROR = 103;
/** Tag, request id, two LSNs. */
const HEADER_BYTES = 25;
/** Requests under way at a time. */
const PIPELINE = 64;

/** One timeline. */
interface Source {
  readonly address: string;
  readonly tenant: TenantId;
  readonly timeline: TimelineId;
}

/** What the pageserver says of a timeline at `lsn`; it is waited for. */
export class PageServiceClient {
  readonly #copy: CopyBoth;
  readonly #lsn: Lsn;
  #requestId = 0;

  private constructor(copy: CopyBoth, lsn: Lsn) {
    this.#copy = copy;
    this.#lsn = lsn;
  }

  static async connect(source: Source, lsn: Lsn): Promise<PageServiceClient> {
    const client = await connect(source);
    const copy = await client.copyBoth(`pagestream_v3 ${source.tenant} ${source.timeline}`);
    return new PageServiceClient(copy, lsn);
  }

  close(): void {
    this.#copy.close();
  }

  async exists(tag: RelTag): Promise<boolean> {
    return (await this.#one(EXISTS, relationBody(tag)))[0] === 1;
  }

  async blocks(tag: RelTag): Promise<number> {
    const answer = await this.#one(NBLOCKS, relationBody(tag));
    return new DataView(answer.buffer, answer.byteOffset).getUint32(0);
  }

  /** Visits blocks [0, count); the page is valid during the visit, or the error's text. */
  async pages(
    tag: RelTag,
    count: number,
    visit: (block: number, page: Uint8Array | string) => void,
  ): Promise<void> {
    for (let first = 0; first < count; first += PIPELINE) {
      const last = Math.min(first + PIPELINE, count);
      for (let block = first; block < last; block++) {
        this.#request(GET_PAGE, [...relationBody(tag), ...u32(block)]);
      }
      await this.#copy.flush();
      for (let block = first; block < last; block++) {
        const answer = await this.#copy.receive();
        assert.ok(answer !== undefined);
        visit(block, answer[0] === ERROR ? errorText(answer) : answer.subarray(-PAGE_SIZE));
      }
    }
  }

  /** One page; valid until the next request. Throws the error's text. */
  async page(tag: RelTag, block: number): Promise<Uint8Array> {
    return await this.#one(GET_PAGE, [...relationBody(tag), ...u32(block)]);
  }

  /** All pages of an SLRU segment. */
  async slruSegment(kind: number, segment: number): Promise<Uint8Array> {
    return (await this.#one(GET_SLRU_SEGMENT, [kind, ...u32(segment)])).slice(4);
  }

  /** The payload of the answer to one request. Throws the error's text. */
  async #one(tag: number, body: number[]): Promise<Uint8Array> {
    this.#request(tag, body);
    await this.#copy.flush();
    const answer = await this.#copy.receive();
    assert.ok(answer !== undefined);
    if (answer[0] === ERROR) throw new Error(errorText(answer));
    return answer.slice(HEADER_BYTES + body.length);
  }

  #request(tag: number, body: number[]): void {
    const lsn = [...u32(lsnHigh(this.#lsn)), ...u32(lsnLow(this.#lsn))];
    const id = [...u32(0), ...u32(++this.#requestId)];
    this.#copy.queue(new Uint8Array([tag, ...id, ...lsn, ...lsn, ...body]));
  }
}

/** Which relation forks there are at `lsn`, by what an endpoint would be started with. */
export async function relationsAt(source: Source, lsn: Lsn): Promise<LazyFilesMap> {
  const client = await connect(source);
  try {
    const command = `basebackup ${source.tenant} ${source.timeline} ${formatLsn(lsn)} --lazy`;
    const tar = new TarReader(client.copyOut(command));
    let map: Uint8Array | undefined;
    for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
      if (entry.name !== "lazy_files.map") continue;
      map = new Uint8Array(entry.sizeBytes);
      let at = 0;
      for await (const part of tar.body()) {
        map.set(part, at);
        at += part.length;
      }
    }
    return decodeLazyFilesMap(map!);
  } finally {
    client.close();
  }
}

function connect(source: Source): Promise<PgClient> {
  return PgClient.connect(parseAddress(source.address), { user: "test", database: "pages" });
}

function u32(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function relationBody({ spc, db, rel, fork }: RelTag): number[] {
  return [...u32(spc), ...u32(db), ...u32(rel), fork];
}

function errorText(answer: Uint8Array): string {
  return new TextDecoder().decode(answer.subarray(HEADER_BYTES, -1));
}
