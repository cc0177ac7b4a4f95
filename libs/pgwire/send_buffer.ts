/**
 * Outgoing bytes of one connection. Messages are assembled in place in one buffer and leave in one
 * write per flush; while a write is under way, new messages gather in a second buffer, so nothing
 * is copied twice and nothing waits for the socket to assemble.
 *
 * A connection that rests keeps one or two small buffers. Larger ones are borrowed, and given back
 * when what was in them has left: connections are many, and few send much at the same time.
 */
import { Unavailable } from "../utils/errors.ts";

/**
 * Most bytes that may wait in a connection's buffer. A queue that outgrows it has a peer that does
 * not read; the connection is given up instead of taking the process's memory.
 */
const SEND_BUFFER_LIMIT_BYTES = 256 * 1024 * 1024;

/** What a SendBuffer needs of a socket. */
interface ByteSink {
  write(bytes: Uint8Array): Promise<number>;
}

/** Bytes of a connection's own buffers, and of those that are lent out. */
const OWN_BYTES = 16 * 1024;
const LENT_BYTES = 512 * 1024;
/** Buffers that are kept for the next borrower. */
const LENT_KEPT = 4;

const lent: Uint8Array<ArrayBuffer>[] = [];

function borrow(wanted: number): Uint8Array<ArrayBuffer> {
  if (wanted > LENT_BYTES) return new Uint8Array(2 ** Math.ceil(Math.log2(wanted)));
  return lent.pop() ?? new Uint8Array(LENT_BYTES);
}

function giveBack(buffer: Uint8Array<ArrayBuffer>): void {
  if (buffer.length === LENT_BYTES && lent.length < LENT_KEPT) lent.push(buffer);
}

/** Assembles messages and writes them in batches. */
export class SendBuffer {
  /** Write here, at the offset that `reserve` returned. Replaced when the buffer grows. */
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array(OWN_BYTES);
  /** A view of `bytes`. */
  view: DataView = new DataView(this.bytes.buffer);
  readonly #sink: ByteSink;
  #length = 0;
  /** An own buffer that is not in use. */
  #spare: Uint8Array<ArrayBuffer> | undefined;
  /** Never fails: what goes wrong is in #failure. */
  #writing: Promise<void> | undefined;
  #failure: { readonly thrown: unknown } | undefined;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  /** Bytes assembled and not yet handed to the socket. */
  get length(): number {
    return this.#length;
  }

  /** Makes room for `count` bytes and returns the offset at which to write them. */
  reserve(count: number): number {
    const at = this.#length;
    const end = at + count;
    if (end > this.bytes.length) this.#grow(end);
    this.#length = end;
    return at;
  }

  #grow(wanted: number): void {
    if (wanted > SEND_BUFFER_LIMIT_BYTES) {
      throw new Unavailable(
        `Cannot queue more for a peer that does not read: ${wanted} bytes are waiting`,
      );
    }
    const full = this.bytes;
    const grown = borrow(wanted);
    grown.set(full.subarray(0, this.#length));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
    this.#release(full);
  }

  /** Takes back an own buffer, gives back one that was lent. */
  #release(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.length === OWN_BYTES) this.#spare = buffer;
    else giveBack(buffer);
  }

  /** Reserves a message of `type` with a body of `bodyBytes`; returns the body's offset. */
  beginMessage(type: number, bodyBytes: number): number {
    const at = this.reserve(5 + bodyBytes);
    this.bytes[at] = type;
    this.view.setUint32(at + 1, 4 + bodyBytes);
    return at + 5;
  }

  /** Appends a whole message. */
  message(type: number, body: Uint8Array): void {
    const at = this.beginMessage(type, body.length); // first: it may replace `bytes`
    this.bytes.set(body, at);
  }

  /** Appends bytes as they are. */
  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Sends all that was assembled; resolves when the socket took it. Throws what the socket does. */
  async flush(): Promise<void> {
    await this.send();
    await this.#writing;
    this.#check();
  }

  /**
   * Begins to send all that was assembled, as soon as what was sent before has left. Resolves then:
   * more can be assembled while the socket takes this. What goes wrong with it is thrown by the
   * next call.
   */
  async send(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    this.#check();
    if (this.#length === 0) return;
    const full = this.bytes;
    const length = this.#length;
    this.bytes = this.#spare ?? new Uint8Array(OWN_BYTES);
    this.#spare = undefined;
    this.view = new DataView(this.bytes.buffer);
    this.#length = 0;
    this.#writing = this.#writeOut(full, length);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  async #writeOut(full: Uint8Array<ArrayBuffer>, length: number): Promise<void> {
    try {
      let done = 0;
      while (done < length) done += await this.#sink.write(full.subarray(done, length));
    } catch (thrown) {
      this.#failure = { thrown };
    } finally {
      this.#release(full);
      this.#writing = undefined;
    }
  }
}
