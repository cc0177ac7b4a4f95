/**
 * The part of protobuf's encoding that the broker's messages need (protobuf.dev, "Encoding"): a
 * message is a row of fields, each a tag (number and wire type) and a value. Three daemons have to
 * read it, and the library for it is what they would load longest.
 *
 * Numbers beyond 2^53 come out rounded; who relies on them has to look. Fields that we do not know
 * are passed over.
 */
import { BadRequest } from "../libs/utils/errors.ts";

/** What stands in a field: a scalar, names by number, or another message. */
type Kind = "uint64" | "bool" | "bytes" | "string" | readonly string[] | Shape;

/** One field. One that is absent has its default value, or, if it may be absent, none. */
interface Field {
  readonly number: number;
  readonly name: string;
  readonly kind: Kind;
  readonly rule?: "optional" | "repeated";
  /** Under this name it is noted that the field is there. */
  readonly oneof?: string;
}

/** The fields of a message. */
export type Shape = { readonly fields: readonly Field[] };

type Message = Record<string, unknown>;

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/** Deepest message in a message; ours have three. */
const DEPTH_MAX = 8;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

function broken(why: string): BadRequest {
  return new BadRequest(`Cannot read the message: ${why}`);
}

/** The bytes of a message. */
export function encodeMessage(shape: Shape, message: object): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  writeMessage(shape, message as Message, out);
  return Uint8Array.from(out);
}

function writeMessage(shape: Shape, message: Message, out: number[]): void {
  for (const field of shape.fields) {
    const value = message[field.name];
    if (value === null || value === undefined) continue;
    if (field.rule === "repeated") {
      for (const one of value as unknown[]) writeField(field, one, out);
    } else if (field.rule === "optional" || !isDefault(field.kind, value)) {
      writeField(field, value, out);
    }
  }
}

function isDefault(kind: Kind, value: unknown): boolean {
  if (kind === "bytes" || kind === "string") return (value as Uint8Array | string).length === 0;
  if (typeof kind === "string") return Number(value) === 0;
  return "fields" in kind ? false : enumNumber(kind, value) === 0;
}

function writeField({ number, kind }: Field, value: unknown, out: number[]): void {
  if (kind === "uint64" || kind === "bool") {
    writeVarint(number * 8 + VARINT, out);
    writeVarint(Number(value), out);
  } else if (typeof kind === "object" && !("fields" in kind)) {
    writeVarint(number * 8 + VARINT, out);
    writeVarint(enumNumber(kind, value), out);
  } else {
    const bytes = kind === "string"
      ? encoder.encode(value as string)
      : kind === "bytes"
      ? value as Uint8Array
      : encodeMessage(kind, value as object);
    writeVarint(number * 8 + LENGTH, out);
    writeVarint(bytes.length, out);
    for (const byte of bytes) out.push(byte);
  }
}

function enumNumber(names: readonly string[], value: unknown): number {
  const number = typeof value === "number" ? value : names.indexOf(value as string);
  if (number < 0) throw new RangeError(`Cannot encode "${value}": there is no such name`);
  return number;
}

function writeVarint(value: number, out: number[]): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`Cannot encode ${value} as an unsigned number`);
  }
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out.push(rest % 0x80 + 0x80);
  out.push(rest);
}

/** The message in `bytes`. Throws BadRequest if they are not one. */
export function decodeMessage(shape: Shape, bytes: Uint8Array): Message {
  return new Reader(bytes).message(shape, bytes.length, 0);
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(shape: Shape, end: number, depth: number): Message {
    if (depth > DEPTH_MAX) throw broken("it is nested too deeply");
    const message = emptyMessage(shape);
    while (this.#at < end) {
      const tag = this.#varint(end);
      const wireType = tag % 8;
      const field = shape.fields.find(({ number }) => number === Math.floor(tag / 8));
      if (field === undefined || wireType !== wireTypeOf(field.kind)) {
        this.#skip(wireType, end);
        continue;
      }
      const value = this.#value(field.kind, end, depth);
      if (field.rule === "repeated") (message[field.name] as unknown[]).push(value);
      else message[field.name] = value;
      if (field.oneof !== undefined) message[field.oneof] = field.name;
    }
    return message;
  }

  #value(kind: Kind, end: number, depth: number): unknown {
    if (kind === "uint64") return this.#varint(end);
    if (kind === "bool") return this.#varint(end) !== 0;
    if (typeof kind === "object" && !("fields" in kind)) {
      const number = this.#varint(end);
      return kind[number] ?? number;
    }
    const stop = this.#lengthEnd(end);
    if (typeof kind === "object") return this.message(kind, stop, depth + 1);
    const bytes = this.#bytes.slice(this.#at, stop);
    this.#at = stop;
    if (kind === "bytes") return bytes;
    try {
      return decoder.decode(bytes);
    } catch {
      throw broken("a text in it is not UTF-8");
    }
  }

  #varint(end: number): number {
    let value = 0;
    for (let shift = 1, count = 0; count < 10; shift *= 0x80, count++) {
      if (this.#at >= end) throw broken("its end is missing");
      const byte = this.#bytes[this.#at++]!;
      value += byte % 0x80 * shift;
      if (byte < 0x80) return value;
    }
    throw broken("a number in it is too long");
  }

  /** Where what has its length before it ends. */
  #lengthEnd(end: number): number {
    const length = this.#varint(end);
    if (length > end - this.#at) throw broken("its end is missing");
    return this.#at + length;
  }

  #skip(wireType: number, end: number): void {
    if (wireType === VARINT) this.#varint(end);
    else if (wireType === LENGTH) this.#at = this.#lengthEnd(end);
    else if (wireType === FIXED64) this.#at += 8;
    else if (wireType === FIXED32) this.#at += 4;
    else throw broken(`there is no wire type ${wireType}`);
    if (this.#at > end) throw broken("its end is missing");
  }
}

function wireTypeOf(kind: Kind): number {
  if (kind === "uint64" || kind === "bool") return VARINT;
  return typeof kind === "object" && !("fields" in kind) ? VARINT : LENGTH;
}

function emptyMessage(shape: Shape): Message {
  const message: Message = {};
  for (const { name, kind, rule } of shape.fields) {
    if (rule === "repeated") message[name] = [];
    else if (rule === "optional" || typeof kind === "object" && "fields" in kind) {
      message[name] = null;
    } else if (kind === "uint64") message[name] = 0;
    else if (kind === "bool") message[name] = false;
    else if (kind === "bytes") message[name] = new Uint8Array(0);
    else if (kind === "string") message[name] = "";
    else message[name] = (kind as readonly string[])[0];
  }
  return message;
}
