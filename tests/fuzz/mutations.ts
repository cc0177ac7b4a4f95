/** Seeded damage to bytes and texts: what a broken or hostile peer may send. */
import type { SeededRandom } from "../load/random.ts";

/** Values that limits and signs trip over. */
const INTERESTING = [
  0,
  1,
  3,
  4,
  7,
  8,
  0x7f,
  0x80,
  0xff,
  0x7fff,
  0xffff,
  0x10000,
  0x1fffff,
] as const;
const HUGE = [0x3ffffff, 0x4000000, 0x7ffffffe, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];

/** Bytes with one to four faults: flipped, overwritten, cut, doubled, inserted, mixed. */
export function mutated(
  bytes: Uint8Array,
  random: SeededRandom,
  others: readonly Uint8Array[] = [],
): Uint8Array {
  let damaged: Uint8Array = bytes.slice();
  for (let left = random.between(1, 4); left > 0; left--) damaged = once(damaged, random, others);
  return damaged;
}

function once(
  bytes: Uint8Array,
  random: SeededRandom,
  others: readonly Uint8Array[],
): Uint8Array {
  const at = random.between(0, Math.max(0, bytes.length - 1));
  switch (random.between(0, 7)) {
    case 0: // a bit
      if (bytes.length > 0) bytes[at]! ^= 1 << random.between(0, 7);
      return bytes;
    case 1: // a byte
      if (bytes.length > 0) bytes[at] = random.pick([...INTERESTING]) & 0xff;
      return bytes;
    case 2: // a number of four bytes
    case 3:
      return withNumber(bytes, at, random.pick([...INTERESTING, ...HUGE]));
    case 4: // the end is missing
      return bytes.slice(0, at);
    case 5: { // a part is missing
      return joined(bytes.subarray(0, at), bytes.subarray(at + random.between(1, 16)));
    }
    case 6: { // a part comes twice
      const end = at + random.between(1, 64);
      return joined(bytes.subarray(0, end), bytes.subarray(at));
    }
    default: { // a part of something else, or anything
      const other = others.length > 0 ? random.pick(others) : anything(random, 32);
      const from = random.between(0, other.length);
      const part = other.subarray(from, from + random.between(1, 64));
      return joined(bytes.subarray(0, at), part, bytes.subarray(at));
    }
  }
}

function withNumber(bytes: Uint8Array, at: number, value: number): Uint8Array {
  if (bytes.length < 4) return bytes;
  const offset = Math.min(at, bytes.length - 4);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(offset, value, (at & 1) === 0);
  return bytes;
}

/** Up to `most` random bytes. */
export function anything(random: SeededRandom, most: number): Uint8Array {
  return Uint8Array.from({ length: random.between(0, most) }, () => random.between(0, 255));
}

/** One array behind the other. */
export function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const WORDS = [
  "",
  "0/0",
  "0/1",
  "FFFFFFFF/FFFFFFFF",
  "1FFFFF/FFFFFFFF",
  "latest",
  "-1",
  "1e9",
  "99999999999999999999999",
  "NaN",
  "null",
  "'",
  "''",
  "\\",
  "--",
  "../../../etc/passwd",
  "%00",
  "\u0000",
  "\u{1F418}",
  "00000000000000000000000000000000",
  "x".repeat(5000),
  " ".repeat(5000),
  "((((((((",
];

/** A line with one to three words gone, doubled, changed or replaced. */
export function mutatedLine(line: string, random: SeededRandom): string {
  const words = line.split(" ");
  for (let left = random.between(1, 3); left > 0; left--) {
    const at = random.between(0, words.length - 1);
    const word = words[at] ?? "";
    switch (random.between(0, 4)) {
      case 0:
        words.splice(at, 1);
        break;
      case 1:
        words.splice(at, 0, word);
        break;
      case 2:
        words[at] = random.pick(WORDS);
        break;
      case 3:
        words[at] = word.slice(0, random.between(0, word.length));
        break;
      default:
        words[at] = word + random.pick(WORDS);
    }
  }
  return words.join(" ");
}

/** A value of JSON with one part wrong, missing, or more than was asked for. */
export function mutatedJson(value: unknown, random: SeededRandom): unknown {
  const chosen = random.pick(partsOf(value));
  const changed = (at: unknown): unknown => {
    if (at === chosen.value) return wrongInPlaceOf(at, random);
    if (Array.isArray(at)) return at.map(changed);
    if (at === null || typeof at !== "object") return at;
    const entries = Object.entries(at).filter(() => chosen.remove !== at || random.next() < 0.5);
    return Object.fromEntries(entries.map(([key, one]) => [key, changed(one)]));
  };
  return changed(value);
}

interface Part {
  /** Changed wherever it stands. */
  readonly value?: unknown;
  /** Some of its members go. */
  readonly remove?: unknown;
}

function partsOf(value: unknown): Part[] {
  if (value === null || typeof value !== "object") return [{ value }];
  const below = Object.values(value).flatMap(partsOf);
  return [{ value }, { remove: value }, ...below];
}

const TEXTS = ["a\0b", "\u0000", ...WORDS];
const NUMBERS = [0, -1, 0.5, 65536, 2 ** 31, 2 ** 32, 2 ** 32 + 5, 2 ** 53 - 1, 2 ** 53, 1e300];

function wrongInPlaceOf(value: unknown, random: SeededRandom): unknown {
  const choice = random.between(0, 3);
  if (choice > 0 && typeof value === "string") return random.pick(TEXTS);
  if (choice > 0 && typeof value === "number") return random.pick(NUMBERS);
  if (choice > 0 && Array.isArray(value)) return Array.from({ length: 40 }, () => value[0]);
  const nested = JSON.parse("[".repeat(90) + "]".repeat(90)) as unknown;
  const surprising = { constructor: 1, toString: 2, ["__proto__"]: 3 };
  return random.pick([null, true, {}, [], nested, surprising, ...NUMBERS, ...TEXTS]);
}
