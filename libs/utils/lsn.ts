/**
 * Log sequence numbers: byte positions in the WAL.
 *
 * A branded safe integer (2^53 bytes is 8 PiB of WAL), so that arithmetic and comparison cost what
 * they cost for numbers. Text form is PostgreSQL's `%X/%X` (pg_lsn), for example `0/16B5A50`.
 */

declare const lsnBrand: unique symbol;

/** A byte position in the WAL. Invariant: a safe integer >= 0. 0 is "invalid", as in PostgreSQL. */
export type Lsn = number & { readonly [lsnBrand]: true };

/** PostgreSQL's InvalidXLogRecPtr. */
export const INVALID_LSN = 0 as Lsn;

const TWO_32 = 4294967296;

/** Brands `value` as an Lsn. Throws RangeError unless it is a safe integer >= 0. */
export function toLsn(value: number): Lsn {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`Cannot use a number as an LSN: current value is ${value}`);
  }
  return value as Lsn;
}

/** Combines the two 32-bit halves of a 64-bit position. */
export function lsnFromHalves(high: number, low: number): Lsn {
  return (high * TWO_32 + low) as Lsn;
}

/** The upper 32 bits. */
export function lsnHigh(lsn: Lsn): number {
  return Math.floor(lsn / TWO_32);
}

/** The lower 32 bits, unsigned. (>>> takes its operand modulo 2^32, and costs no division.) */
export function lsnLow(lsn: Lsn): number {
  return lsn >>> 0;
}

/** `lsn + bytes`, still an Lsn. */
export function addLsn(lsn: Lsn, bytes: number): Lsn {
  return (lsn + bytes) as Lsn;
}

/** Rounds up to the next multiple of 8 (MAXALIGN), where WAL records start. */
export function alignLsn(lsn: Lsn): Lsn {
  return (lsn + (-lsn & 7)) as Lsn;
}

/** The greater of two positions. */
export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

/** The lesser of two positions. */
export function minLsn(a: Lsn, b: Lsn): Lsn {
  return a < b ? a : b;
}

/** Prints as PostgreSQL does: `0/16B5A50`. */
export function formatLsn(lsn: Lsn): string {
  const low = lsnLow(lsn).toString(16).toUpperCase();
  return `${lsnHigh(lsn).toString(16).toUpperCase()}/${low}`;
}

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** Parses `X/X`. Throws SyntaxError for anything else, and beyond 2^53. */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text);
  if (match === null) {
    throw new SyntaxError(
      `Cannot parse an LSN (expected the form 0/16B5A50): current value is "${text}"`,
    );
  }
  const lsn = parseInt(match[1]!, 16) * TWO_32 + parseInt(match[2]!, 16);
  if (Number.isSafeInteger(lsn)) return lsn as Lsn;
  throw new SyntaxError(`Cannot use an LSN beyond 2^53: current value is "${text}"`);
}
