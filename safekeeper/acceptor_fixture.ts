/**
 * What the small simulation of acceptors alone is made of (acceptor_sim_test.ts): acceptors on
 * model disks whose crashes lose what was not synced, the bytes that anybody ever called committed,
 * and schedules that repeat by their seed.
 */
import assert from "node:assert/strict";
import type { AcceptorMessage } from "../libs/safekeeper_protocol/messages.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { Acceptor, type Effect } from "./acceptor.ts";
import { decodeTimelineState, encodeTimelineState } from "./control_file.ts";
import { newTimelineState, type TimelineState } from "./timeline_state.ts";

/** Where the log begins. */
export const LOG_START = 0x1000028 as Lsn;
/** Every record of a model log has this length. */
const RECORD_BYTES = 8;

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** The control file of a timeline on which nothing has happened. */
export function someTimelineState(): TimelineState {
  return newTimelineState({
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    walSegmentSize: 1 << 24,
    startLsn: LOG_START,
  });
}

/** End of the last whole record in a log of `bytes` bytes. */
function recordEnd(bytes: number): Lsn {
  return (LOG_START + bytes - bytes % RECORD_BYTES) as Lsn;
}

/** A log with more bytes at its end. */
export function grown(log: Uint8Array, more: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(log.length + more.length);
  whole.set(log);
  whole.set(more, log.length);
  return whole;
}

/** Some random records. */
export function randomRecords(random: () => number): Uint8Array {
  const bytes = (1 + Math.floor(random() * 4)) * RECORD_BYTES;
  return Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256));
}

/** One acceptor with its disk: what is durable, what is only in the page cache. */
export class ModelAcceptor {
  acceptor!: Acceptor;
  log = new Uint8Array(0);
  durableBytes = 0;
  /** Grows with each restart: connections of before are gone. */
  epoch = 0;
  #control: Uint8Array;
  #termSeen = 0;

  constructor(readonly id: number, state: TimelineState, readonly random: () => number) {
    this.#control = encodeTimelineState(state);
    this.restart();
  }

  /** Comes back with what was durable and a random part of what was not. */
  restart(): void {
    const kept = this.durableBytes +
      Math.floor(this.random() * (this.log.length - this.durableBytes + 1));
    const end = recordEnd(kept);
    this.log = this.log.slice(0, end - LOG_START);
    this.durableBytes = this.log.length; // opening the storage syncs what it found
    this.acceptor = new Acceptor(this.id, decodeTimelineState(this.#control, "model"), end);
    assert.ok(this.acceptor.state.term >= this.#termSeen, "a durable term fell");
    this.epoch++;
  }

  flush(): void {
    this.durableBytes = this.log.length;
    this.acceptor.flushed(recordEnd(this.log.length));
  }

  /** Does to the disk what the effect says; returns what it answers. No answer to "acknowledge". */
  perform(effect: Effect): AcceptorMessage | undefined {
    switch (effect.kind) {
      case "persist":
        this.#control = encodeTimelineState(effect.state);
        this.#termSeen = effect.state.term;
        this.acceptor.persisted(effect.state);
        break;
      case "truncate":
        this.log = this.log.slice(0, effect.lsn - LOG_START);
        this.durableBytes = this.log.length;
        this.acceptor.truncated(effect.lsn);
        break;
      case "write":
        assert.equal(effect.lsn, LOG_START + this.log.length);
        this.log = grown(this.log, effect.bytes);
        this.acceptor.written((LOG_START + this.log.length) as Lsn, recordEnd(this.log.length));
        break;
      case "flush":
        this.flush();
        break;
      case "reply":
        return effect.message;
      case "acknowledge":
        break;
    }
    return undefined;
  }
}

/** The bytes that anybody ever called committed: they only grow. */
export class CommittedLog {
  bytes = new Uint8Array(0);

  /** Somebody calls the log up to `end` committed. Fails if it says otherwise than before. */
  claim(log: Uint8Array, end: Lsn): void {
    const claimed = log.subarray(0, end - LOG_START);
    const shared = Math.min(claimed.length, this.bytes.length);
    assert.deepEqual(claimed.subarray(0, shared), this.bytes.subarray(0, shared));
    if (claimed.length > shared) this.bytes = claimed.slice();
  }

  /** Fails unless all of it is durable on a majority. */
  check(nodes: readonly ModelAcceptor[]): void {
    const holders = nodes.filter(({ durableBytes, log }) =>
      this.bytes.length <= durableBytes && this.bytes.every((byte, i) => log[i] === byte)
    );
    const isMajority = holders.length * 2 > nodes.length;
    assert.ok(isMajority, "a committed byte is not durable on a majority");
  }
}

/** Runs `steps` steps of a simulation for each seed from 1 to `seeds`; a failure names its seed. */
export function simulate<S extends { step(): void }>(
  seeds: number,
  steps: number,
  begin: (seed: number) => S,
): S[] {
  return Array.from({ length: seeds }, (_, i) => {
    const simulation = begin(i + 1);
    try {
      for (let step = 0; step < steps; step++) simulation.step();
    } catch (thrown) {
      throw new Error(`seed ${i + 1}: ${(thrown as Error).message}`, { cause: thrown });
    }
    return simulation;
  });
}
