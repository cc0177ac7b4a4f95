/**
 * Transaction ids as numbers. A 32-bit xid lives on a circle: half of the ids are before it, half
 * after. A full xid is epoch * 2^32 + xid, a safe integer, and only grows. Multixact ids and member
 * offsets compare on the same kind of circle.
 */
import { FIRST_NORMAL_XID } from "./constants.ts";

const TWO_32 = 4294967296;

/** Whether `a` comes before `b` on the circle (MultiXactIdPrecedes; TransactionIdPrecedes for normal xids). */
export function circlePrecedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** TransactionIdPrecedes: the three reserved ids come before all others. */
export function xidPrecedes(a: number, b: number): boolean {
  return a < FIRST_NORMAL_XID || b < FIRST_NORMAL_XID ? a < b : circlePrecedes(a, b);
}

/** The full xid of `xid`, which is not after the full xid `next` and less than 2^32 before it. */
export function fullXidBefore(next: number, xid: number): number {
  const low = next % TWO_32;
  const epochStart = next - low;
  return xid <= low ? epochStart + xid : epochStart - TWO_32 + xid;
}

/**
 * The next full xid after a record with `xid` was seen: `next` if xid is before it, otherwise one
 * past xid, reserved ids skipped (AdvanceNextFullTransactionIdPastXid, varsup.c).
 */
export function advancePast(next: number, xid: number): number {
  const low = next % TWO_32;
  if (xid < FIRST_NORMAL_XID || xidPrecedes(xid, low)) return next;
  let after = (xid + 1) % TWO_32;
  if (after < FIRST_NORMAL_XID) after = FIRST_NORMAL_XID;
  return next - low + after + (after < low ? TWO_32 : 0);
}
