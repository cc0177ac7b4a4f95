/**
 * A page service for tests, small enough to be trusted: it speaks pagestream_v3 and takes its pages
 * from a function. It can misbehave on request, in the ways that the library must survive.
 */
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { type PgServer, servePg } from "../../libs/pgwire/server.ts";
import { Unauthorized } from "../../libs/utils/errors.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { relationSegmentPath, type RelTag } from "../../libs/postgres/relation.ts";

const ECHO_BYTES = 41;
const ERROR_ECHO_BYTES = 24;

/** One GetPage request. */
interface PageRequest extends RelTag {
  readonly requestId: bigint;
  readonly requestLsn: bigint;
  readonly notModifiedSince: bigint;
  readonly block: number;
}

/** Writes the page to `into` at `at`; a text instead is sent as error 103. */
export type PageSource = (
  request: PageRequest,
  into: Uint8Array,
  at: number,
) => string | undefined;

/** A running page service. */
export class PageServiceFixture {
  readonly #server: PgServer;
  readonly #source: PageSource;
  #closing: Promise<void> | undefined;
  /** Commands that clients sent, in order. */
  readonly commands: string[] = [];
  /** Requests answered so far. */
  requests = 0;
  /** The newest request. */
  last: PageRequest | undefined;
  /** Changes an answer before it is sent: `payload` starts with the tag. */
  spoil: ((payload: Uint8Array, request: PageRequest) => void) | undefined;
  /** Hang up after so many answers, once. */
  hangUpAfter = Infinity;
  /** Tokens that clients sent, in order. */
  readonly tokens: string[] = [];

  /** With `token` it wants that one. */
  constructor(source: PageSource, token?: string) {
    this.#source = source;
    this.#server = servePg({
      hostname: "127.0.0.1",
      port: 0,
      login: token === undefined ? undefined : (given) => {
        this.tokens.push(given);
        if (given === token) return Promise.resolve({ checkTenant() {} });
        throw new Unauthorized("Cannot authenticate: that is another token");
      },
      onConnection: async (session) => {
        const command = await session.nextQuery();
        if (command === undefined) return;
        this.commands.push(command);
        await this.#stream(await session.beginCopyBoth(65536));
      },
    });
  }

  get address(): { host: string; port: number } {
    return { host: "127.0.0.1", port: this.#server.port };
  }

  async #stream(copy: CopyBoth): Promise<void> {
    for (;;) {
      const payload = copy.tryReceive() ?? await this.#wait(copy);
      if (payload === undefined) return;
      if (this.requests === this.hangUpAfter) {
        this.hangUpAfter = Infinity;
        await copy.flush();
        return;
      }
      this.#answer(copy, payload);
    }
  }

  async #wait(copy: CopyBoth): Promise<Uint8Array | undefined> {
    await copy.flush();
    return await copy.receive();
  }

  #answer(copy: CopyBoth, payload: Uint8Array): void {
    this.requests++;
    const request = decodeRequest(payload);
    this.last = request;
    const at = copy.reserve(1 + ECHO_BYTES + PAGE_SIZE);
    const bytes = copy.sendBytes;
    bytes[at] = 102;
    bytes.set(payload.subarray(1), at + 1);
    const error = this.#source(request, bytes, at + 1 + ECHO_BYTES);
    if (error !== undefined) {
      // The reserved message becomes an error with the text padded by NULs.
      const text = new Uint8Array(ECHO_BYTES - ERROR_ECHO_BYTES + PAGE_SIZE);
      new TextEncoder().encodeInto(error, text);
      bytes[at] = 103;
      bytes.set(text, at + 1 + ERROR_ECHO_BYTES);
    }
    this.spoil?.(bytes.subarray(at, at + 1 + ECHO_BYTES + PAGE_SIZE), request);
  }

  /** May be called again. */
  close(): Promise<void> {
    return this.#closing ??= this.#server.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function decodeRequest(payload: Uint8Array): PageRequest {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  if (payload.length !== 1 + ECHO_BYTES || payload[0] !== 2) {
    throw new Error(`Cannot answer a request of ${payload.length} bytes with tag ${payload[0]}`);
  }
  return {
    requestId: view.getBigUint64(1),
    requestLsn: view.getBigUint64(9),
    notModifiedSince: view.getBigUint64(17),
    spc: view.getUint32(25),
    db: view.getUint32(29),
    rel: view.getUint32(33),
    fork: view.getUint8(37),
    block: view.getUint32(38),
  };
}

/** Serves the relation files of a data directory that nobody changes. */
export function dataDirectorySource(pgdata: string): PageSource & Disposable {
  const files = new Map<string, Deno.FsFile>();
  const source = (request: PageRequest, into: Uint8Array, at: number) => {
    const segment = Math.floor(request.block / RELATION_SEGMENT_PAGES);
    const path = `${pgdata}/${relationSegmentPath(request, segment)}`;
    let file = files.get(path);
    if (file === undefined) files.set(path, file = Deno.openSync(path));
    file.seekSync((request.block % RELATION_SEGMENT_PAGES) * PAGE_SIZE, Deno.SeekMode.Start);
    const count = file.readSync(into.subarray(at, at + PAGE_SIZE));
    return count === PAGE_SIZE ? undefined : `block ${request.block} of ${path} does not exist`;
  };
  return Object.assign(source, {
    [Symbol.dispose]() {
      for (const file of files.values()) file.close();
    },
  });
}
