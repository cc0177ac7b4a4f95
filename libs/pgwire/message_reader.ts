/**
 * Incoming messages of one connection: type byte, u32 length (itself included), body.
 *
 * The reader is a cursor over one receive buffer: `tryNext` and `next` move it to the next message
 * and `type`, `bodyStart`, `bodyEnd` say where it lies in `bytes`. A body stays where it arrived
 * and is valid until the cursor moves on.
 */
import { Corrupt } from "../utils/errors.ts";

/**
 * Longest message accepted unless the reader is told otherwise. A page service answer of a whole
 * SLRU segment is 256 KiB.
 */
const MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024;

const INITIAL_BUFFER_BYTES = 64 * 1024;

/** What a MessageReader needs of a socket. */
interface ByteSource {
  read(into: Uint8Array): Promise<number | null>;
}

/** Splits a byte stream into protocol messages. */
export class MessageReader {
  /** The receive buffer; replaced when a longer message arrives. */
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array(INITIAL_BUFFER_BYTES);
  /** A view of `bytes`. */
  view: DataView = new DataView(this.bytes.buffer);
  /** Type byte of the current message. */
  type = 0;
  /** Where the current body starts in `bytes`. */
  bodyStart = 0;
  /** Where it ends. */
  bodyEnd = 0;
  /** Longest message accepted, with its type and length. */
  limitBytes = MESSAGE_LIMIT_BYTES;
  readonly #source: ByteSource;
  // Invariant: 0 <= #at <= #filled <= bytes.length; bytes [#at, #filled) are not consumed yet.
  #at = 0;
  #filled = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** The current body. */
  body(): Uint8Array {
    return this.bytes.subarray(this.bodyStart, this.bodyEnd);
  }

  /** True if the next message has arrived in full. */
  get buffered(): boolean {
    return this.#messageLength() >= 0;
  }

  /** Moves to the next message if it has arrived in full. */
  tryNext(): boolean {
    const length = this.#messageLength();
    if (length < 0) return false;
    this.type = this.bytes[this.#at]!;
    this.bodyStart = this.#at + 5;
    this.bodyEnd = this.#at + length;
    this.#at = this.bodyEnd;
    return true;
  }

  /** Moves to the next message, waiting for it; false at the end of the stream. */
  async next(): Promise<boolean> {
    while (!this.tryNext()) {
      if (!(await this.more())) return false;
    }
    return true;
  }

  /**
   * Reads the packet that opens a connection: u32 length (itself included) and body, without a type
   * byte. False at the end of the stream.
   */
  async nextStartup(): Promise<boolean> {
    while (this.#filled - this.#at < 4) if (!(await this.more())) return false;
    const length = this.view.getUint32(this.#at);
    if (length < 8 || length > 10_000) {
      throw new Corrupt(`Cannot read a startup packet: its length is ${length}`);
    }
    while (this.#filled - this.#at < length) if (!(await this.more())) return false;
    this.bodyStart = this.#at + 4;
    this.bodyEnd = this.#at + length;
    this.#at = this.bodyEnd;
    return true;
  }

  /** Length of the next message with its type byte, or -1 while it has not arrived in full. */
  #messageLength(): number {
    const have = this.#filled - this.#at;
    if (have < 5) return -1;
    const length = this.view.getUint32(this.#at + 1) + 1;
    if (length < 5 || length > this.limitBytes) {
      throw new Corrupt(`Cannot read a protocol message: its length is ${length - 1}`);
    }
    return have >= length ? length : -1;
  }

  /** Waits for more bytes, when there is no next message; false at the end of the stream. */
  more(): Promise<boolean> {
    this.#makeRoom();
    const room = this.#filled === 0 ? this.bytes : this.bytes.subarray(this.#filled);
    return this.#source.read(room).then(this.#received);
  }

  readonly #received = (count: number | null): boolean => {
    this.#filled += count ?? 0;
    return count !== null;
  };

  /**
   * Moves what is not consumed to the front, and doubles a buffer that is full: a length that was
   * only claimed takes no memory.
   */
  #makeRoom(): void {
    const have = this.#filled - this.#at;
    if (have === this.bytes.length) {
      const grown = new Uint8Array(this.bytes.length * 2);
      grown.set(this.bytes.subarray(this.#at, this.#filled));
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    } else if (this.#at > 0) {
      this.bytes.copyWithin(0, this.#at, this.#filled);
    }
    this.#at = 0;
    this.#filled = have;
  }
}
