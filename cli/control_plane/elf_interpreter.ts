/**
 * Which dynamic loader a Linux program asks for, which tells the C library that it is made for:
 * "/lib64/ld-linux-x86-64.so.2" (glibc), "/lib/ld-musl-x86_64.so.1".
 *
 * It is the PT_INTERP segment of an ELF file (System V ABI, "Program Interpreter"): the ELF header
 * says where the program headers are, and one of these where the name is. 64 bits, little-endian.
 */
import { ifThere } from "../../libs/utils/if_there.ts";

const MAGIC = 0x464c457f; // "\x7fELF"
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const PT_INTERP = 3;
/** A path; anything longer is not one. */
const NAME_BYTES_MAX = 4096;

function readAt(file: Deno.FsFile, offset: number, length: number): DataView | undefined {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  let at = 0;
  while (at < length) {
    const count = file.readSync(bytes.subarray(at));
    if (count === null) return undefined;
    at += count;
  }
  return new DataView(bytes.buffer);
}

/** The loader of the program at `path`; undefined if there is none, or no such program. */
export function interpreterOf(path: string): string | undefined {
  using file = ifThere(() => Deno.openSync(path));
  if (file === undefined) return undefined;
  const header = readAt(file, 0, HEADER_BYTES);
  if (header === undefined || header.getUint32(0, true) !== MAGIC) return undefined;
  if (header.getUint8(4) !== CLASS_64 || header.getUint8(5) !== LITTLE_ENDIAN) return undefined;
  const first = Number(header.getBigUint64(32, true));
  const [size, count] = [header.getUint16(54, true), header.getUint16(56, true)];
  for (let i = 0; i < count; i++) {
    const segment = readAt(file, first + i * size, PROGRAM_HEADER_BYTES);
    if (segment?.getUint32(0, true) !== PT_INTERP) continue;
    const length = Number(segment.getBigUint64(32, true));
    if (length > NAME_BYTES_MAX) return undefined;
    const name = readAt(file, Number(segment.getBigUint64(8, true)), length);
    return name && new TextDecoder().decode(name).replace(/\0.*$/s, "");
  }
  return undefined;
}
