/**
 * COPY BOTH: after START_REPLICATION, START_WAL_PUSH or pagestream, both sides send CopyData
 * whenever they like. The same object serves the client and the server end.
 *
 * Zero-copy sending: `const at = copy.reserve(n)`, write n payload bytes into `copy.sendBytes` (or
 * `copy.sendView`) at `at`, and `flush()` once per batch.
 */
import { ServerError } from "./messages.ts";
import { MessageType, readError } from "./messages.ts";
import type { MessageReader } from "./message_reader.ts";
import type { SendBuffer } from "./send_buffer.ts";

/** A payload in the receive buffer: bytes[bodyStart, bodyEnd). */
export interface Received {
  readonly bytes: Uint8Array;
  /** A view of `bytes`. */
  readonly view: DataView;
  readonly bodyStart: number;
  readonly bodyEnd: number;
}

/** One end of a COPY BOTH stream. */
export class CopyBoth {
  readonly #reader: MessageReader;
  readonly #sender: SendBuffer;
  readonly #close: () => void;
  #ended = false;

  constructor(reader: MessageReader, sender: SendBuffer, close: () => void) {
    this.#reader = reader;
    this.#sender = sender;
    this.#close = close;
  }

  /**
   * The next CopyData payload: a view into the receive buffer, valid until the next call. Undefined
   * when the other side ended the stream or the connection. Throws ServerError if it sent an error.
   */
  async receive(): Promise<Uint8Array | undefined> {
    while (!this.tryNext()) {
      if (!this.#ended && await this.#reader.more()) continue;
      this.#ended = true;
      return undefined;
    }
    return this.#reader.body();
  }

  /** Like `receive`, but returns undefined at once where it would have to wait. */
  tryReceive(): Uint8Array | undefined {
    return this.tryNext() ? this.#reader.body() : undefined;
  }

  /**
   * Like `receive`, without an object for the payload: it lies in `received`, valid until the next
   * call.
   */
  async next(): Promise<boolean> {
    while (!this.tryNext()) {
      if (!this.#ended && await this.#reader.more()) continue;
      this.#ended = true;
      return false;
    }
    return true;
  }

  /** Like `next`, but returns false at once where it would have to wait. */
  tryNext(): boolean {
    while (!this.#ended && this.#reader.tryNext()) {
      if (this.#reader.type === MessageType.copyData) return true;
      this.#control();
    }
    return false;
  }

  /**
   * Waits for more bytes, when there is no next payload; false at the end of the stream or the
   * connection.
   */
  more(): Promise<boolean> {
    return this.#ended ? Promise.resolve(false) : this.#reader.more();
  }

  /** Where the payload lies that `next` moved to. */
  get received(): Received {
    return this.#reader;
  }

  /** True if `receive` would not wait. */
  get buffered(): boolean {
    return this.#ended || this.#reader.buffered;
  }

  /** True once the other side has ended the stream. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Handles a message that is not CopyData. */
  #control(): void {
    switch (this.#reader.type) {
      case MessageType.copyDone: // also CommandComplete ("C" is 0x43, CopyDone "c")
      case MessageType.terminate:
      case MessageType.copyFail:
      case MessageType.commandComplete:
        this.#ended = true;
        return;
      case MessageType.error:
        this.#ended = true;
        throw readError(this.#reader.body());
      case MessageType.notice:
      case MessageType.parameterStatus:
        return;
      default:
        this.#ended = true;
        throw new ServerError(
          "08P01",
          `Cannot use a message of type ${this.#reader.type} in a copy stream`,
        );
    }
  }

  /** Bytes assembled and not yet sent. */
  get queuedBytes(): number {
    return this.#sender.length;
  }

  /** Where payload bytes go; look it up again after each `reserve`. */
  get sendBytes(): Uint8Array {
    return this.#sender.bytes;
  }

  /** A view of `sendBytes`. */
  get sendView(): DataView {
    return this.#sender.view;
  }

  /** Reserves one CopyData of `payloadBytes`; returns the payload's offset in `sendBytes`. */
  reserve(payloadBytes: number): number {
    return this.#sender.beginMessage(MessageType.copyData, payloadBytes);
  }

  /** Assembles the parts, one behind the other, as one CopyData. */
  queue(...parts: Uint8Array[]): void {
    let length = 0;
    for (const part of parts) length += part.length;
    let at = this.reserve(length);
    for (const part of parts) {
      this.#sender.bytes.set(part, at);
      at += part.length;
    }
  }

  /** Sends what was assembled, in one write. */
  flush(): Promise<void> {
    return this.#sender.flush();
  }

  /** Sends it without anybody who waits; throws what went wrong before: see SendBuffer.push. */
  push(): void {
    this.#sender.push();
  }

  /** True while the socket is taking something that was sent. */
  get isLeaving(): boolean {
    return this.#sender.isLeaving;
  }

  /** Calls `onLeft`, which must not throw, whenever everything has left that was sent. */
  watch(onLeft: () => void): void {
    this.#sender.onLeft = onLeft;
  }

  /** Begins to send it, and resolves when more can be assembled: see SendBuffer.send. */
  send(): Promise<void> {
    return this.#sender.send();
  }

  /** Tells the other side that we send no more (CopyDone). */
  async finish(): Promise<void> {
    this.#sender.message(MessageType.copyDone, new Uint8Array(0));
    await this.flush();
  }

  /** Server only: reports an error in place of the rest of the stream. */
  async fail(body: Uint8Array): Promise<void> {
    this.#sender.message(MessageType.error, body);
    await this.flush();
  }

  /** Closes the connection under the stream. */
  close(): void {
    this.#close();
  }
}
