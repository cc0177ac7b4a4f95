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

/** A buffer, and a view of it. */
interface Buffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
}

function newBuffer(length: number): Buffer {
  const bytes = new Uint8Array(length);
  return { bytes, view: new DataView(bytes.buffer) };
}

/** Bytes of a connection's own buffers, and of those that are lent out. */
const OWN_BYTES = 16 * 1024;
const LENT_BYTES = 512 * 1024;
/** Buffers that are kept for the next borrower. */
const LENT_KEPT = 4;

const lent: Buffer[] = [];

function borrow(wanted: number): Buffer {
  if (wanted > LENT_BYTES) return newBuffer(2 ** Math.ceil(Math.log2(wanted)));
  return lent.pop() ?? newBuffer(LENT_BYTES);
}

function giveBack(buffer: Buffer): void {
  if (buffer.bytes.length === LENT_BYTES && lent.length < LENT_KEPT) lent.push(buffer);
}

/** Assembles messages and writes them in batches. */
export class SendBuffer {
  /** Write here, at the offset that `reserve` returned. Replaced when the buffer grows. */
  bytes: Uint8Array<ArrayBuffer>;
  /** A view of `bytes`. */
  view: DataView;
  /** Called when everything has left that was to leave. Must not throw. */
  onLeft: () => void = () => {};
  readonly #sink: ByteSink;
  #filling: Buffer = newBuffer(OWN_BYTES);
  #length = 0;
  /** An own buffer that is not in use. */
  #spare: Buffer | undefined;
  /** What the socket is taking: [leavingFrom, leavingEnd) of it. */
  #leaving: Buffer | undefined;
  #leavingFrom = 0;
  #leavingEnd = 0;
  /** What was assembled meanwhile leaves behind it. */
  #goesOn = false;
  /** Resolved when `#leaving` has left, or cannot; made when somebody waits. */
  #left: PromiseWithResolvers<void> | undefined;
  #failure: { readonly thrown: unknown } | undefined;

  constructor(sink: ByteSink) {
    this.#sink = sink;
    this.bytes = this.#filling.bytes;
    this.view = this.#filling.view;
  }

  /** Bytes assembled and not yet handed to the socket. */
  get length(): number {
    return this.#length;
  }

  /** True while the socket is taking something. */
  get isLeaving(): boolean {
    return this.#leaving !== undefined;
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
    const full = this.#filling;
    const grown = borrow(wanted);
    grown.bytes.set(full.bytes.subarray(0, this.#length));
    this.#fill(grown);
    this.#release(full);
  }

  #fill(buffer: Buffer): void {
    this.#filling = buffer;
    this.bytes = buffer.bytes;
    this.view = buffer.view;
  }

  /** Takes back an own buffer, gives back one that was lent. */
  #release(buffer: Buffer): void {
    if (buffer.bytes.length === OWN_BYTES) this.#spare = buffer;
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
    if (this.#leaving !== undefined) await this.#leavingIsOver();
    this.#check();
  }

  /**
   * Begins to send all that was assembled, as soon as what was sent before has left. Resolves then:
   * more can be assembled while the socket takes this. What goes wrong with it is thrown by the
   * next call.
   */
  async send(): Promise<void> {
    while (this.#leaving !== undefined) await this.#leavingIsOver();
    this.#check();
    if (this.#length > 0) this.#begin();
  }

  /**
   * Like `send`, for those who wait for nothing: what was assembled leaves now, or behind what is
   * leaving. Throws what went wrong before.
   */
  push(): void {
    this.#check();
    if (this.#leaving !== undefined) this.#goesOn = true;
    else if (this.#length > 0) this.#begin();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  #leavingIsOver(): Promise<void> {
    return (this.#left ??= Promise.withResolvers<void>()).promise;
  }

  #begin(): void {
    this.#leaving = this.#filling;
    this.#leavingFrom = 0;
    this.#leavingEnd = this.#length;
    this.#fill(this.#spare ?? newBuffer(OWN_BYTES));
    this.#spare = undefined;
    this.#length = 0;
    this.#write();
  }

  #write(): void {
    const rest = this.#leaving!.bytes.subarray(this.#leavingFrom, this.#leavingEnd);
    this.#sink.write(rest).then(this.#written, this.#failed);
  }

  readonly #written = (count: number): void => {
    this.#leavingFrom += count;
    if (this.#leavingFrom < this.#leavingEnd) this.#write();
    else this.#over();
  };

  readonly #failed = (thrown: unknown): void => {
    this.#failure = { thrown };
    this.#over();
  };

  /** Nothing is leaving any more. */
  #over(): void {
    this.#release(this.#leaving!);
    this.#leaving = undefined;
    const left = this.#left;
    this.#left = undefined;
    const goesOn = this.#goesOn && this.#failure === undefined;
    this.#goesOn = false;
    if (goesOn && this.#length > 0) this.#begin();
    else if (this.#failure === undefined) this.onLeft();
    left?.resolve();
  }
}
