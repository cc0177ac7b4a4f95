/**
 * CRC-32C (Castagnoli), the checksum of PostgreSQL's WAL, of pg_control and of our own files.
 *
 * The native add-on of @node-rs/crc32 does 6.9 GB/s; it is loaded by the path of its `.node` file,
 * because that needs only `--allow-ffi=<that file>`. Where the add-on is missing or not permitted,
 * a slicing-by-8 table in TypeScript gives the same numbers at a tenth of the speed.
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const PACKAGE_VERSION = "1.10.8";

/** Absolute path of the add-on for this platform, or undefined where there is none. */
export function crc32AddonPath(): string | undefined {
  const libc = Deno.build.os === "linux" ? "-gnu" : "";
  const cpu = Deno.build.arch === "x86_64" ? "x64" : "arm64";
  if (Deno.build.os !== "linux" && Deno.build.os !== "darwin") return undefined;
  const platform = `${Deno.build.os}-${cpu}${libc}`;
  try {
    const main = fileURLToPath(import.meta.resolve("@node-rs/crc32/package.json"));
    const scope = main.slice(0, main.lastIndexOf("/crc32/"));
    return `${scope}/crc32-${platform}/${PACKAGE_VERSION}/crc32.${platform}.node`;
  } catch {
    return undefined;
  }
}

// Never runs. It puts the package into the module graph, so that Deno fetches it, and the add-on of
// this platform, with the code that needs it.
if (import.meta.main) void import("@node-rs/crc32");

type Crc32c = (bytes: Uint8Array, initial?: number) => number;

function loadAddon(): Crc32c | undefined {
  const path = crc32AddonPath();
  if (path === undefined) return undefined;
  try {
    const addon = createRequire(import.meta.url)(path) as { crc32c: Crc32c };
    return addon.crc32c;
  } catch {
    return undefined; // not installed, musl, or no --allow-ffi: the table below serves
  }
}

let tables: Uint32Array[] | undefined;

function makeTables(): Uint32Array[] {
  const made = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let i = 0; i < 256; i++) {
    let crc = i;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    made[0]![i] = crc;
  }
  for (let i = 0; i < 256; i++) {
    for (let t = 1; t < 8; t++) {
      const before = made[t - 1]![i]!;
      made[t]![i] = (before >>> 8) ^ made[0]![before & 0xff]!;
    }
  }
  return made;
}

/**
 * The portable implementation, of bytes[start, end): exported so that a test can hold the two
 * against each other.
 */
export function crc32cPortable(
  bytes: Uint8Array,
  initial = 0,
  start = 0,
  end = bytes.length,
): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = (tables ??= makeTables()) as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let crc = ~initial;
  let at = start;
  for (const bulkEnd = end - 8; at <= bulkEnd; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc = t7[crc & 0xff]! ^ t6[(crc >>> 8) & 0xff]! ^ t5[(crc >>> 16) & 0xff]! ^ t4[crc >>> 24]! ^
      t3[bytes[at + 4]!]! ^ t2[bytes[at + 5]!]! ^ t1[bytes[at + 6]!]! ^ t0[bytes[at + 7]!]!;
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ t0[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}

/**
 * CRC-32C of `bytes`, continuing from `initial` (the CRC of what came before; 0 at the start), so
 * `crc32c(b, crc32c(a))` is the CRC of a followed by b.
 */
export const crc32c: Crc32c = loadAddon() ?? crc32cPortable;

/** Up to this length the tables beat the add-on, whose call and view object cost 90 ns. */
const TABLE_BYTES_MAX = 160;

/** The same of bytes[start, start + length). */
export function crc32cOf(
  bytes: Uint8Array,
  start: number,
  length: number,
  initial: number,
): number {
  return length <= TABLE_BYTES_MAX
    ? crc32cPortable(bytes, initial, start, start + length)
    : crc32c(bytes.subarray(start, start + length), initial);
}
