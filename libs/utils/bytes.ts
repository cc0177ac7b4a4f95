/**
 * Growable writer and bounds-checked reader for small messages and file headers.
 * Hot paths (records, pages) use typed arrays directly instead.
 */
import { Corrupt } from "./errors.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "./lsn.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Byte order of multi-byte integers. */
type Endian = "little" | "big";

/** Appends integers, bytes and strings to a buffer that doubles when full. */
export class ByteWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;
  readonly #little: boolean;

  constructor(endian: Endian, capacityBytes = 256) {
    this.#bytes = new Uint8Array(capacityBytes);
    this.#view = new DataView(this.#bytes.buffer);
    this.#little = endian === "little";
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** A view of what was written; valid until the next write. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Forgets what was written and keeps the buffer. */
  reset(): this {
    this.#length = 0;
    return this;
  }

  #reserve(count: number): number {
    const at = this.#length;
    if (at + count > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, at + count));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = at + count;
    return at;
  }

  u8(value: number): this {
    const at = this.#reserve(1); // may replace the view
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2); // may replace the view
    this.#view.setUint16(at, value, this.#little);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4); // may replace the view
    this.#view.setUint32(at, value, this.#little);
    return this;
  }

  i32(value: number): this {
    const at = this.#reserve(4); // may replace the view
    this.#view.setInt32(at, value, this.#little);
    return this;
  }

  u64(value: bigint): this {
    const at = this.#reserve(8); // may replace the view
    this.#view.setBigUint64(at, value, this.#little);
    return this;
  }

  i64(value: bigint): this {
    const at = this.#reserve(8); // may replace the view
    this.#view.setBigInt64(at, value, this.#little);
    return this;
  }

  lsn(value: Lsn): this {
    const at = this.#reserve(8);
    this.#view.setUint32(at + (this.#little ? 4 : 0), lsnHigh(value), this.#little);
    this.#view.setUint32(at + (this.#little ? 0 : 4), lsnLow(value), this.#little);
    return this;
  }

  raw(value: Uint8Array): this {
    const at = this.#reserve(value.length);
    this.#bytes.set(value, at);
    return this;
  }

  zeros(count: number): this {
    const at = this.#reserve(count);
    this.#bytes.fill(0, at, at + count);
    return this;
  }

  /** UTF-8 text with a terminating NUL. */
  cstr(value: string): this {
    return this.raw(encoder.encode(value)).u8(0);
  }

  /** Overwrites a u32 written earlier, for lengths known only at the end. */
  patchU32(at: number, value: number): this {
    this.#view.setUint32(at, value, this.#little);
    return this;
  }
}

/** Reads what ByteWriter writes. Every read past the end throws Corrupt naming `what`. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #little: boolean;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Uint8Array, endian: Endian, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#little = endian === "little";
    this.#what = what;
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#at;
  }

  /** Bytes not read yet. */
  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  #take(count: number): number {
    if (count < 0 || count > this.remaining) {
      throw new Corrupt(
        `Cannot read ${this.#what}: ${count} bytes wanted at offset ${this.#at}, ` +
          `${this.remaining} left`,
      );
    }
    const at = this.#at;
    this.#at += count;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), this.#little);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), this.#little);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), this.#little);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), this.#little);
  }

  i64(): bigint {
    return this.#view.getBigInt64(this.#take(8), this.#little);
  }

  /** A 64-bit position. Throws Corrupt beyond 2^53, except 2^64-1 which callers test with u64(). */
  lsn(): Lsn {
    const at = this.#take(8);
    const high = this.#view.getUint32(at + (this.#little ? 4 : 0), this.#little);
    const low = this.#view.getUint32(at + (this.#little ? 0 : 4), this.#little);
    if (high > 0x1fffff) throw new Corrupt(`Cannot read ${this.#what}: LSN beyond 2^53 at ${at}`);
    return lsnFromHalves(high, low);
  }

  /** A view of the next `count` bytes. */
  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  /** UTF-8 text up to a NUL. */
  cstr(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw new Corrupt(`Cannot read ${this.#what}: string without end`);
    const text = decoder.decode(this.#bytes.subarray(this.#at, end));
    this.#at = end + 1;
    return text;
  }

  /** Throws Corrupt if bytes are left over. */
  end(): void {
    if (this.remaining !== 0) {
      throw new Corrupt(`Cannot read ${this.#what}: ${this.remaining} bytes left over`);
    }
  }
}
