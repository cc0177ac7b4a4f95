/**
 * Tar archives: the ustar format (POSIX.1-1988) as a stream, read and written in 512-byte blocks.
 *
 *   header: name 0..99 | mode 100 (8, octal) | uid 108 | gid 116 | size 124 (12, octal) |
 *           mtime 136 (12) | checksum 148 (8) | type 156 | link name 157..256 | "ustar" 257 |
 *           version 263 | prefix 345..499     then the body, padded to 512; two zero blocks end it
 *
 * The reader also understands what npm and GNU tar write for long names: pax headers ('x', keys
 * path, linkpath and size) and GNU long names ('L', 'K'). Bodies are never held in memory as a
 * whole.
 */
import { Corrupt } from "./errors.ts";

const BLOCK_BYTES = 512;
/** Limit of a pax header or long name body, which is read whole. */
const EXTENDED_HEADER_BYTES_MAX = 1 << 20;

/** What kind of member an entry is. */
type TarEntryType = "file" | "directory" | "symlink" | "other";

/** One member of an archive. */
export interface TarEntry {
  name: string;
  type: TarEntryType;
  mode: number;
  sizeBytes: number;
  linkName: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function textAt(header: Uint8Array, at: number, length: number): string {
  const field = header.subarray(at, at + length);
  const end = field.indexOf(0);
  return decoder.decode(end < 0 ? field : field.subarray(0, end));
}

/** Octal digits, or base 256 when the first bit is set (GNU, for sizes of 8 GiB and more). */
function numberAt(header: Uint8Array, at: number, length: number): number {
  if ((header[at]! & 0x80) !== 0) {
    let value = header[at]! & 0x7f;
    for (let i = 1; i < length; i++) value = value * 256 + header[at + i]!;
    return value;
  }
  const text = textAt(header, at, length).trim();
  return text === "" ? 0 : parseInt(text, 8);
}

function headerChecksum(header: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) sum += i >= 148 && i < 156 ? 0x20 : header[i]!;
  return sum;
}

const TYPES: Record<string, TarEntryType> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "5": "directory",
  "2": "symlink",
};

/** The records "length key=value\n" of a pax header. */
function parsePax(body: Uint8Array): Map<string, string> {
  const values = new Map<string, string>();
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at);
    const length = space < 0 ? 0 : Number(decoder.decode(body.subarray(at, space)));
    if (!(length > 0)) break;
    const record = decoder.decode(body.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    values.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return values;
}

/**
 * Reads an archive from chunks of bytes. Call next() for each entry, then body() or skip it: an
 * unread body is skipped by the following next().
 */
export class TarReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #bodyLeft = 0;
  #paddingLeft = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** The next entry, or undefined at the end. Throws Corrupt for damaged archives. */
  async next(): Promise<TarEntry | undefined> {
    let long: { path?: string; linkpath?: string; size?: string } = {};
    for (;;) {
      await this.#skip(this.#bodyLeft + this.#paddingLeft);
      this.#bodyLeft = this.#paddingLeft = 0;
      const header = await this.#take(BLOCK_BYTES);
      if (header === undefined || header.every((byte) => byte === 0)) return undefined;
      if (headerChecksum(header) !== numberAt(header, 148, 8)) {
        throw new Corrupt("Cannot read tar archive: wrong header checksum");
      }
      const size = long.size === undefined ? numberAt(header, 124, 12) : Number(long.size);
      this.#bodyLeft = size;
      this.#paddingLeft = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
      const type = String.fromCharCode(header[156]!);
      if (type === "x" || type === "g" || type === "L" || type === "K") {
        long = { ...long, ...await this.#extended(type, size) };
        continue;
      }
      const prefix = textAt(header, 257, 5) === "ustar" ? textAt(header, 345, 155) : "";
      const name = textAt(header, 0, 100);
      return {
        name: long.path ?? (prefix === "" ? name : `${prefix}/${name}`),
        type: TYPES[type] ?? "other",
        mode: numberAt(header, 100, 8) & 0o7777,
        sizeBytes: size,
        linkName: long.linkpath ?? textAt(header, 157, 100),
      };
    }
  }

  /** Reads what follows the archive's end mark, so that the sender sees all of it taken. */
  async drain(): Promise<void> {
    while (await this.#more());
  }

  /** The body of the current entry, in views valid until the next step. */
  async *body(): AsyncGenerator<Uint8Array> {
    while (this.#bodyLeft > 0) {
      if (this.#at === this.#chunk.length && !await this.#more()) {
        throw new Corrupt(`Cannot read tar archive: ends ${this.#bodyLeft} bytes early`);
      }
      const part = this.#chunk.subarray(this.#at, this.#at + this.#bodyLeft);
      this.#at += part.length;
      this.#bodyLeft -= part.length;
      yield part;
    }
  }

  /** All of the current entry's body. Throws Corrupt if it has more than `bytesMax`. */
  async wholeBody(bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#bodyLeft > bytesMax) {
      throw new Corrupt(
        `Cannot read tar archive: an entry has ${this.#bodyLeft} bytes, at most ${bytesMax} fit`,
      );
    }
    const body = new Uint8Array(this.#bodyLeft);
    let done = 0;
    for await (const part of this.body()) {
      body.set(part, done);
      done += part.length;
    }
    return body;
  }

  async #extended(type: string, size: number): Promise<Record<string, string>> {
    const body = await this.wholeBody(EXTENDED_HEADER_BYTES_MAX);
    if (type === "g") return {};
    if (type === "x") return Object.fromEntries(parsePax(body));
    return { [type === "L" ? "path" : "linkpath"]: textAt(body, 0, size) };
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#chunks.next();
      if (done === true) return false;
      if (value.length === 0) continue;
      this.#chunk = value;
      this.#at = 0;
      return true;
    }
  }

  /** Exactly `count` bytes, or undefined at the end of the input. */
  async #take(count: number): Promise<Uint8Array | undefined> {
    if (this.#chunk.length - this.#at >= count) {
      this.#at += count;
      return this.#chunk.subarray(this.#at - count, this.#at);
    }
    const bytes = new Uint8Array(count);
    let done = 0;
    while (done < count) {
      if (this.#at === this.#chunk.length && !await this.#more()) {
        if (done === 0) return undefined;
        throw new Corrupt("Cannot read tar archive: it ends within a block");
      }
      const part = this.#chunk.subarray(this.#at, this.#at + count - done);
      bytes.set(part, done);
      this.#at += part.length;
      done += part.length;
    }
    return bytes;
  }

  async #skip(count: number): Promise<void> {
    while (count > 0) {
      if (this.#at === this.#chunk.length && !await this.#more()) {
        throw new Corrupt(`Cannot read tar archive: ends ${count} bytes early`);
      }
      const step = Math.min(count, this.#chunk.length - this.#at);
      this.#at += step;
      count -= step;
    }
  }
}

/** The 512-byte header of a file or a directory. Throws RangeError for names over 100 bytes. */
export function tarHeader(
  entry: { name: string; type: "file" | "directory"; mode: number; sizeBytes: number },
): Uint8Array<ArrayBuffer> {
  const name = encoder.encode(entry.name);
  if (name.length > 100) {
    throw new RangeError(`Cannot write tar header: name is too long: "${entry.name}"`);
  }
  const header = new Uint8Array(BLOCK_BYTES);
  const octal = (value: number, at: number, digits: number) =>
    header.set(encoder.encode(value.toString(8).padStart(digits, "0")), at);
  header.set(name, 0);
  octal(entry.mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(entry.sizeBytes, 124, 11);
  octal(0, 136, 11);
  header[156] = entry.type === "file" ? 0x30 : 0x35;
  header.set(encoder.encode("ustar\x0000"), 257);
  octal(headerChecksum(header), 148, 6);
  header[155] = 0x20;
  return header;
}

/** Zero bytes that follow a body of `sizeBytes`. */
export function tarPadding(sizeBytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array((BLOCK_BYTES - sizeBytes % BLOCK_BYTES) % BLOCK_BYTES);
}

/** The two zero blocks at the end of an archive. */
export function tarEnd(): Uint8Array<ArrayBuffer> {
  return new Uint8Array(2 * BLOCK_BYTES);
}
