/**
 * Small state files: magic, version, length, body and CRC, replaced atomically.
 *
 *   u32 magic | u32 version | u32 body length | body | u32 CRC-32C of all before    (little endian)
 *
 * Opening a file of another magic, of a version that this program does not know, or with a wrong
 * checksum throws Corrupt and names the file: a daemon never starts on such a directory.
 */
import { ByteReader, ByteWriter } from "./bytes.ts";
import { crc32c } from "./crc32c.ts";
import { replaceFile, replaceFileInBackground } from "./durable.ts";
import { Corrupt } from "./errors.ts";

/** What kind of file, and which versions of it this program reads. */
export interface SealedFormat {
  /** Four characters, for example "NSKC". */
  readonly magic: string;
  /** The version written; versions 1..version are readable. */
  readonly version: number;
  /** For messages, for example "safekeeper control file". */
  readonly what: string;
}

function magicNumber(format: SealedFormat): number {
  const m = format.magic;
  return (m.charCodeAt(0) | (m.charCodeAt(1) << 8) | (m.charCodeAt(2) << 16) |
    (m.charCodeAt(3) << 24)) >>> 0;
}

/** Frames `body` with header and checksum. */
export function sealBytes(format: SealedFormat, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("little", body.length + 16);
  writer.u32(magicNumber(format)).u32(format.version).u32(body.length).raw(body);
  return writer.u32(crc32c(writer.bytes())).bytes();
}

/** Checks the frame; returns version and body. Throws Corrupt naming `path`. */
export function unsealBytes(
  format: SealedFormat,
  bytes: Uint8Array,
  path: string,
): { version: number; body: Uint8Array } {
  const what = `${format.what} "${path}"`;
  const reader = new ByteReader(bytes, "little", what);
  if (reader.u32() !== magicNumber(format)) {
    throw new Corrupt(`Cannot read ${what}: it is not a ${format.what} (wrong magic)`);
  }
  const version = reader.u32();
  if (version < 1 || version > format.version) {
    throw new Corrupt(
      `Cannot read ${what}: format version ${version} is newer than this program knows ` +
        `(${format.version})`,
    );
  }
  const body = reader.raw(reader.u32());
  const computed = crc32c(bytes.subarray(0, reader.offset));
  if (reader.u32() !== computed) throw new Corrupt(`Cannot read ${what}: checksum mismatch`);
  reader.end();
  return { version, body };
}

/** Seals and atomically replaces the file at `path` (mode applies to a new file). */
export function writeSealedFile(
  path: string,
  format: SealedFormat,
  body: Uint8Array,
  mode?: number,
): void {
  replaceFile(path, sealBytes(format, body), mode);
}

/** Like writeSealedFile(), without holding anybody up. */
export function writeSealedFileInBackground(
  path: string,
  format: SealedFormat,
  body: Uint8Array,
  mode?: number,
): Promise<void> {
  return replaceFileInBackground(path, sealBytes(format, body), mode);
}

/** Reads and checks the file at `path`. Throws Corrupt, or Deno.errors.NotFound. */
export function readSealedFile(
  path: string,
  format: SealedFormat,
): { version: number; body: Uint8Array } {
  return unsealBytes(format, Deno.readFileSync(path), path);
}
