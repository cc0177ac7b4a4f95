/** A page service that lies, as the lazy file library may meet one: in the words of the protocol. */
import { markedPage } from "../../compute/lazy_files/probe_fixture.ts";
import type { SeededRandom } from "../load/random.ts";
import { anything, joined } from "./mutations.ts";

const ECHO_BYTES = 41;
const ERROR_ECHO_BYTES = 24;
const REQUEST_BYTES = 5 + 1 + ECHO_BYTES;
const RELATION_AT = 33;
const BLOCK_AT = 38;
/** Type, length, tag and echo: what a client can know to be wrong. */
const ANSWER_HEAD_BYTES = REQUEST_BYTES;
const LENGTHS = [0, 3, 4, 5, 8, 40, 46, 8236, 8240, 0x10ffff, 0x7fffffff, 0x80000000, 0xffffffff];
const DRIP_MS = 20;

function message(type: string, body: Uint8Array, length = body.length + 4): Uint8Array {
  const head = new Uint8Array(5);
  head[0] = type.charCodeAt(0);
  new DataView(head.buffer).setUint32(1, length);
  return joined(head, body);
}

function number(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

const READY = joined(message("R", number(0)), message("Z", new Uint8Array([73])));
const STREAM = message("W", new Uint8Array([0, 0, 0]));

/** Length of the startup packet, the password if there is one, and the query; undefined before. */
function startBytes(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0, head = 0; at + head + 4 <= bytes.length; head = 1) {
    const isQuery = head === 1 && bytes[at] === "Q".charCodeAt(0);
    at += head + view.getUint32(at + head);
    if (isQuery && at <= bytes.length) return at;
  }
  return undefined;
}

/** The right answer to a request (from its tag on). */
function page(request: Uint8Array): Uint8Array {
  const view = new DataView(request.buffer, request.byteOffset);
  const content = markedPage(view.getUint32(RELATION_AT), view.getUint32(BLOCK_AT));
  return message("d", joined(new Uint8Array([102]), request.subarray(1), content));
}

function errorFields(random: SeededRandom): Uint8Array {
  const odd = anything(random, 600);
  return random.pick([
    odd,
    joined(new Uint8Array([77]), odd),
    joined(new Uint8Array([83, 0, 77]), odd),
  ]);
}

/** Something that is not the start of a stream. */
function wrongStart(random: SeededRandom): Uint8Array {
  switch (random.between(0, 6)) {
    case 0:
      return message("E", errorFields(random));
    case 1:
      return message("R", anything(random, 8));
    case 2:
      return joined(message("R", number(3)), message("R", number(3)), READY, STREAM);
    case 3:
      return message("R", number(0), random.pick(LENGTHS));
    case 4:
      return joined(READY, STREAM, anything(random, 50));
    case 5:
      return message(String.fromCharCode(random.between(0, 127)), anything(random, 100));
    default:
      return anything(random, 300);
  }
}

/** Answers to `requests` of which something is wrong that a client can see. */
function wrongAnswers(requests: readonly Uint8Array[], random: SeededRandom): Uint8Array[] {
  const answers = requests.map(page);
  const at = random.between(0, answers.length - 1);
  const [request, right] = [requests[at]!, answers[at]!];
  const instead = (bytes: Uint8Array) => answers.map((answer, i) => i === at ? bytes : answer);
  switch (random.between(0, 10)) {
    case 0: // a bit of the head
      right[random.between(0, ANSWER_HEAD_BYTES - 1)]! ^= 1 << random.between(0, 7);
      return answers;
    case 1: { // another length
      new DataView(right.buffer).setUint32(1, random.pick(LENGTHS));
      return answers;
    }
    case 2: { // a short or a long page
      const end = right.length - random.pick([1, 7, 8192, 8191]);
      const body = random.pick([
        right.subarray(5, end),
        joined(right.subarray(5), anything(random, 9)),
      ]);
      return instead(message("d", body));
    }
    case 3: // in another order
      return answers.reverse();
    case 4: // twice
      return instead(joined(right, right));
    case 5: // not at all
      return answers.toSpliced(at, 1);
    case 6: { // an error, of odd bytes, which may be too short for one
      const echo = request.subarray(1, 1 + ERROR_ECHO_BYTES - (random.between(0, 3) ? 0 : 5));
      return instead(message("d", joined(new Uint8Array([103]), echo, anything(random, 900))));
    }
    case 7:
      return instead(message("E", errorFields(random)));
    case 8: // notices between, few or too many
      return instead(
        joined(
          ...Array.from(
            { length: random.pick([1, 3, 3000]) },
            () => message("N", anything(random, 90)),
          ),
          right,
        ),
      );
    case 9: // something else
      return instead(message(random.pick([..."dcCDHWXZ"]), anything(random, 60)));
    default:
      return instead(anything(random, 9000));
  }
}

/** A listening liar. */
export class LyingPageService {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #random: SeededRandom;
  readonly #work: Promise<void>;
  readonly #closing = new AbortController();
  #slowLies: number;
  /** Pieces in which something was wrong. */
  lies = 0;

  /** Drips or is silent so many times: each takes the client a while. */
  constructor(random: SeededRandom, slowLies: number) {
    this.#random = random;
    this.#slowLies = slowLies;
    this.#work = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async #accept(): Promise<void> {
    const open: Promise<void>[] = [];
    for (;;) {
      let connection: Deno.TcpConn;
      try {
        connection = await this.#listener.accept();
      } catch {
        break;
      }
      open.push(this.#serve(connection).catch(() => {}).finally(() => closed(connection)));
    }
    await Promise.all(open);
  }

  /** Ends when the client goes, or with a lie behind which there is nothing to say. */
  async #serve(connection: Deno.TcpConn): Promise<void> {
    const random = this.#random;
    const buffer = new Uint8Array(65536);
    let bytes = new Uint8Array();
    let start: number | undefined;
    while ((start = startBytes(bytes)) === undefined) {
      const count = await connection.read(buffer);
      if (count === null) return;
      bytes = joined(bytes, buffer.subarray(0, count));
    }
    bytes = bytes.slice(start);
    if (random.between(0, 9) === 0) {
      this.lies++;
      await this.#send(connection, wrongStart(random));
      if (random.next() < 0.5) return;
    } else {
      await this.#send(connection, joined(READY, STREAM));
    }
    for (;;) { // the first requests come with the start
      const whole = Math.floor(bytes.length / REQUEST_BYTES);
      const requests = Array.from(
        { length: whole },
        (_, i) => bytes.slice(i * REQUEST_BYTES + 5, (i + 1) * REQUEST_BYTES),
      );
      if (requests.length > 0) await this.#answer(connection, requests);
      const count = await connection.read(buffer);
      if (count === null) return;
      bytes = joined(bytes.slice(whole * REQUEST_BYTES), buffer.subarray(0, count));
    }
  }

  async #answer(connection: Deno.TcpConn, requests: Uint8Array[]): Promise<void> {
    const random = this.#random;
    if (random.next() < 0.6) return await this.#send(connection, joined(...requests.map(page)));
    this.lies++;
    const kind = random.between(0, 9);
    if (kind === 0) { // closed in the middle of a page
      const all = joined(...requests.map(page));
      await this.#send(connection, all.subarray(0, random.between(0, all.length - 1)));
      throw new Error("closed");
    }
    if (kind === 1 && this.#slowLies > 0) return await this.#dawdle(connection, requests);
    await this.#send(connection, joined(...wrongAnswers(requests, random)));
  }

  /** Never answers, or a byte at a time. */
  async #dawdle(connection: Deno.TcpConn, requests: Uint8Array[]): Promise<void> {
    if (this.#slowLies-- % 2 === 0) return;
    for (const byte of joined(...requests.map(page))) {
      await connection.write(new Uint8Array([byte]));
      await new Promise((resolve) => setTimeout(resolve, DRIP_MS));
      if (this.#closing.signal.aborted) return;
    }
  }

  /** In up to three pieces. */
  async #send(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const end = this.#random.next() < 0.7
        ? bytes.length
        : this.#random.between(at + 1, bytes.length);
      while (at < end) at += await connection.write(bytes.subarray(at, end));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#listener.close();
    await this.#work;
  }
}

function closed(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch { /* already */ }
}
