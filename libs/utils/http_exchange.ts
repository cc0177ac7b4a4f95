/**
 * One HTTP/1.1 request to a daemon of ours, over a connection of its own: a command asks two or
 * three daemons a few small things, and Deno's fetch takes 9 ms of CPU for its first request, this
 * takes one. No proxies, redirects, compression or encryption: our daemons have none.
 *
 * An answer that is not whole, or not HTTP, is an error; never a part of an answer.
 */
import type { Address } from "./address.ts";

/** What is asked. */
export interface HttpRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  /** One line each; none holds a line break. */
  readonly headers: Readonly<Record<string, string>>;
  /** A stream goes out in chunks, as it comes. */
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
}

/** What was answered. */
interface HttpResponse {
  readonly status: number;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** A server's head is some hundred bytes long; what is longer is no server of ours. */
const HEAD_BYTES_MAX = 64 * 1024;
const READ_BYTES = 16 * 1024;
const HEAD_END = [13, 10, 13, 10];

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Sends a request and returns the whole answer. When `signal` aborts the connection is closed and
 * this throws. Throws what Deno.connect throws, and an Error that says what is wrong with it.
 */
export async function exchange(
  address: Address,
  request: HttpRequest,
  signal?: AbortSignal,
): Promise<HttpResponse> {
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {}); // who still waits is told
  let connection: Deno.TcpConn | undefined;
  let isOver = false;
  const end = () => {
    isOver = true;
    connection?.close();
    connection = undefined;
  };
  const onAbort = () => {
    failure.reject(signal!.reason);
    end();
  };
  if (signal?.aborted) throw signal.reason;
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const connecting = Deno.connect(address).then((opened) => {
      if (isOver) opened.close();
      else connection = opened;
      return opened;
    });
    const answer = connecting.then((opened) => converse(opened, address, request, failure.reject));
    return await Promise.race([answer, failure.promise]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    end();
  }
}

async function converse(
  connection: Deno.TcpConn,
  address: Address,
  request: HttpRequest,
  fail: (thrown: unknown) => void,
): Promise<HttpResponse> {
  let unsent: unknown;
  // A server may answer without having read everything, and what is left to send then fails
  send(connection, address, request, fail).catch((thrown) => unsent = thrown);
  try {
    return await receive(connection);
  } catch (thrown) {
    throw unsent ?? thrown;
  }
}

async function send(
  connection: Deno.TcpConn,
  { hostname, port }: Address,
  { method, path, headers, body }: HttpRequest,
  fail: (thrown: unknown) => void,
): Promise<void> {
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  const lines = [`${method} ${path} HTTP/1.1`, `host: ${host}:${port}`, "connection: close"];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  if (body instanceof ReadableStream) lines.push("transfer-encoding: chunked");
  else if (body !== undefined) lines.push(`content-length: ${body.length}`);
  const head = encoder.encode(lines.join("\r\n") + "\r\n\r\n");
  if (!(body instanceof ReadableStream)) {
    await writeAll(connection, body === undefined ? head : joined([head, body]));
    return;
  }
  connection.setNoDelay(true);
  await writeAll(connection, head);
  // Without its end there would never be an answer
  for await (const piece of whenItFails(body, fail)) {
    if (piece.length === 0) continue; // that would be the end
    await writeAll(connection, encoder.encode(`${piece.length.toString(16)}\r\n`));
    await writeAll(connection, piece);
    await writeAll(connection, encoder.encode("\r\n"));
  }
  await writeAll(connection, encoder.encode("0\r\n\r\n"));
}

async function* whenItFails<T>(
  source: AsyncIterable<T>,
  fail: (thrown: unknown) => void,
): AsyncGenerator<T> {
  try {
    yield* source;
  } catch (thrown) {
    fail(thrown);
    throw thrown;
  }
}

async function writeAll(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await connection.write(bytes.subarray(done));
}

function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** What has arrived and was not taken yet. */
class Arrived {
  readonly #connection: Deno.TcpConn;
  #bytes = new Uint8Array(READ_BYTES);
  #from = 0;
  #to = 0;

  constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  get #length(): number {
    return this.#to - this.#from;
  }

  /** Reads some more; false at the end. */
  async #more(): Promise<boolean> {
    if (this.#to === this.#bytes.length) {
      const roomier = new Uint8Array(Math.max(READ_BYTES, 2 * this.#length));
      roomier.set(this.#bytes.subarray(this.#from, this.#to));
      this.#to = this.#length;
      this.#from = 0;
      this.#bytes = roomier;
    }
    const count = await this.#connection.read(this.#bytes.subarray(this.#to));
    if (count !== null) this.#to += count;
    return count !== null;
  }

  /** Everything up to `mark`, which is taken, too. */
  async upTo(mark: readonly number[]): Promise<string> {
    for (let looked = 0;;) {
      const bytes = this.#bytes.subarray(this.#from, this.#to);
      for (; looked + mark.length <= bytes.length; looked++) {
        if (!mark.every((byte, i) => bytes[looked + i] === byte)) continue;
        this.#from += looked + mark.length;
        return decoder.decode(bytes.subarray(0, looked));
      }
      if (looked > HEAD_BYTES_MAX) throw new Error("the answer is not one of HTTP");
      if (!await this.#more()) throw cutShort();
    }
  }

  async take(count: number): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#length < count) if (!await this.#more()) throw cutShort();
    this.#from += count;
    return this.#bytes.slice(this.#from - count, this.#from);
  }

  async rest(): Promise<Uint8Array<ArrayBuffer>> {
    while (await this.#more());
    return await this.take(this.#length);
  }
}

function cutShort(): Error {
  return new Error("the connection was closed before the answer was complete");
}

async function receive(connection: Deno.TcpConn): Promise<HttpResponse> {
  const arrived = new Arrived(connection);
  for (;;) {
    const [first, ...lines] = (await arrived.upTo(HEAD_END)).split("\r\n");
    const status = Number(/^HTTP\/1\.[01] ([1-9]\d\d)(?: |$)/.exec(first!)?.[1]);
    if (Number.isNaN(status)) throw new Error("the answer is not one of HTTP");
    if (status < 200) continue; // says that the answer is still to come
    return { status, body: await bodyOf(arrived, status, headersIn(lines)) };
  }
}

function headersIn(lines: readonly string[]): Map<string, string> {
  return new Map(lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()];
  }));
}

/** As the headers say where it ends (RFC 9112, section 6.3). */
async function bodyOf(
  arrived: Arrived,
  status: number,
  headers: ReadonlyMap<string, string>,
): Promise<Uint8Array<ArrayBuffer>> {
  if (status === 204 || status === 304) return new Uint8Array(0);
  const coding = headers.get("transfer-encoding");
  if (coding !== undefined) {
    if (coding.toLowerCase() === "chunked") return await chunksOf(arrived);
    throw new Error(`the answer has the unknown transfer encoding "${coding}"`);
  }
  const length = headers.get("content-length");
  if (length === undefined) return await arrived.rest();
  if (!/^\d{1,15}$/.test(length)) throw new Error("the answer is not one of HTTP");
  return await arrived.take(Number(length));
}

async function chunksOf(arrived: Arrived): Promise<Uint8Array<ArrayBuffer>> {
  const lineEnd = HEAD_END.slice(0, 2);
  const chunks: Uint8Array[] = [];
  for (;;) {
    const size = /^([0-9a-fA-F]{1,8})(?:;|$)/.exec(await arrived.upTo(lineEnd))?.[1];
    if (size === undefined) throw new Error("the answer is not one of HTTP");
    if (Number.parseInt(size, 16) === 0) return joined(chunks); // what may follow is no content
    chunks.push(await arrived.take(Number.parseInt(size, 16)));
    if (await arrived.upTo(lineEnd) !== "") throw new Error("the answer is not one of HTTP");
  }
}
