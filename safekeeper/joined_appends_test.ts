import assert from "node:assert/strict";
import fc from "fast-check";
import {
  APPEND_WAL_BYTES_MAX,
  type AppendRequest,
  decodeProposerMessage,
  encodeAppendRequest,
} from "../libs/safekeeper_protocol/messages.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { joinAppends } from "./joined_appends.ts";

const START = 0x2000000;

function request(begin: number, length: number, changes: Partial<AppendRequest>): AppendRequest {
  return {
    kind: "append",
    generation: 1,
    term: 2,
    beginLsn: begin as Lsn,
    endLsn: (begin + length) as Lsn,
    commitLsn: START as Lsn,
    truncateLsn: START as Lsn,
    wal: Uint8Array.from({ length }, (_, i) => (begin + i) * 7 & 0xff),
    ...changes,
  };
}

/** As they lie in a receive buffer, with something around them. */
function received(requests: readonly AppendRequest[]): [Uint8Array, AppendRequest[]] {
  const encoded = requests.map(encodeAppendRequest);
  const length = encoded.reduce((sum, one) => sum + 5 + one.length, 0);
  const bytes = new Uint8Array(new ArrayBuffer(length + 20), 10, length).fill(0xee);
  let at = 0;
  const decoded = encoded.map((one) => {
    bytes.set(one, at + 5);
    at += 5 + one.length;
    return decodeProposerMessage(bytes, at - one.length, at) as AppendRequest;
  });
  return [bytes, decoded];
}

/** What the appends in `bytes` are, joined as far as they can be. */
function joined(bytes: Uint8Array, appends: readonly AppendRequest[]): AppendRequest[] {
  const found = [appends[0]!];
  for (const next of appends.slice(1)) {
    const both = joinAppends(bytes, found.at(-1)!, next);
    if (both === undefined) found.push(next);
    else found[found.length - 1] = both;
  }
  return found;
}

Deno.test("joinAppends() makes one append of those that continue each other", () => {
  const piece = fc.record({ length: fc.nat(300), commit: fc.nat(900), truncate: fc.nat(900) });
  fc.assert(fc.property(fc.array(piece, { minLength: 1, maxLength: 12 }), (pieces) => {
    let at = START;
    const requests = pieces.map(({ length, commit, truncate }) => {
      const one = request(at, length, {
        commitLsn: (START + commit) as Lsn,
        truncateLsn: (START + truncate) as Lsn,
      });
      at += length;
      return one;
    });
    const found = joined(...received(requests));
    assert.equal(found.length, 1);
    const whole = request(START, at - START, {
      commitLsn: Math.max(...requests.map(({ commitLsn }) => commitLsn)) as Lsn,
      truncateLsn: Math.max(...requests.map(({ truncateLsn }) => truncateLsn)) as Lsn,
    });
    assert.deepEqual({ ...found[0], wal: Uint8Array.from(found[0]!.wal) }, whole);
  }));
});

Deno.test("joinAppends() leaves apart what is not of one piece", () => {
  const first = request(START, 100, {});
  for (
    const next of [
      request(START + 108, 100, {}),
      request(START, 100, {}),
      request(START + 100, 100, { term: 3 }),
      request(START + 100, 100, { generation: 2 }),
      request(START + 100, APPEND_WAL_BYTES_MAX - 99, {}),
    ]
  ) {
    const found = joined(...received([first, next]));
    assert.deepEqual(
      found.map((one) => ({ ...one, wal: Uint8Array.from(one.wal) })),
      [first, next],
    );
  }
  const longest = request(START + 100, APPEND_WAL_BYTES_MAX - 100, {});
  assert.equal(joined(...received([first, longest])).length, 1);
});
