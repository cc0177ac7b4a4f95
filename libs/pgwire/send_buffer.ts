/**
 * Outgoing bytes of one connection. Messages are assembled in place in one buffer and leave in one
 * write per flush; while a write is under way, new messages gather in a second buffer, so nothing
 * is copied twice and nothing waits for the socket to assemble.
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

/** Assembles messages and writes them in batches. */
export class SendBuffer {
  /** Write here, at the offset that `reserve` returned. Replaced when the buffer grows. */
  bytes: Uint8Array<ArrayBuffer>;
  /** A view of `bytes`. */
  view: DataView;
  readonly #sink: ByteSink;
  #length = 0;
  #spare: Uint8Array<ArrayBuffer>;
  #writing: Promise<void> | undefined;

  constructor(sink: ByteSink, capacityBytes = 16 * 1024) {
    this.#sink = sink;
    this.bytes = new Uint8Array(capacityBytes);
    this.view = new DataView(this.bytes.buffer);
    this.#spare = new Uint8Array(capacityBytes);
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
    const grown = new Uint8Array(Math.max(wanted, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.#length));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
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

  /** Sends all that was assembled; resolves when the socket took it. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    if (this.#length === 0) return;
    const full = this.bytes;
    const length = this.#length;
    this.bytes = this.#spare;
    this.view = new DataView(this.bytes.buffer);
    this.#length = 0;
    this.#writing = this.#writeOut(full, length);
    await this.#writing;
  }

  async #writeOut(full: Uint8Array<ArrayBuffer>, length: number): Promise<void> {
    try {
      let done = 0;
      while (done < length) done += await this.#sink.write(full.subarray(done, length));
    } finally {
      this.#spare = full;
      this.#writing = undefined;
    }
  }
}
