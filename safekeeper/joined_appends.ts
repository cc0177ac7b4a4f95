/**
 * Appends that have arrived together, each behind the other, as one: what came during a sync costs
 * one write and one look at the acceptor then, however small the pieces were.
 */
import { APPEND_WAL_BYTES_MAX, type AppendRequest } from "../libs/safekeeper_protocol/messages.ts";
import { assert } from "../libs/utils/assert.ts";
import { maxLsn } from "../libs/utils/lsn.ts";

/**
 * One append that does what `first` and then `next` do; undefined if there is none. Both lie in
 * `bytes`, `next` behind `first`; its WAL is moved to the end of the first one's, over the header
 * between them.
 */
export function joinAppends(
  bytes: Uint8Array,
  first: AppendRequest,
  next: AppendRequest,
): AppendRequest | undefined {
  const isNext = next.beginLsn === first.endLsn && next.term === first.term &&
    next.generation === first.generation;
  const length = first.wal.length + next.wal.length;
  if (!isNext || length > APPEND_WAL_BYTES_MAX) return undefined;
  const begin = first.wal.byteOffset - bytes.byteOffset;
  const end = begin + first.wal.length;
  const from = next.wal.byteOffset - bytes.byteOffset;
  const isBehind = first.wal.buffer === bytes.buffer && next.wal.buffer === bytes.buffer;
  assert(isBehind && from >= end, "both lie in the receive buffer, in their order");
  bytes.copyWithin(end, from, from + next.wal.length);
  return {
    kind: "append",
    generation: first.generation,
    term: first.term,
    beginLsn: first.beginLsn,
    endLsn: next.endLsn,
    commitLsn: maxLsn(first.commitLsn, next.commitLsn),
    truncateLsn: maxLsn(first.truncateLsn, next.truncateLsn),
    wal: bytes.subarray(begin, begin + length),
  };
}
