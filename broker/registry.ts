/**
 * Who listens to what: the broker's only state, kept in memory. A message goes to the subscribers
 * of its timeline and to those of all timelines. A subscriber that reads too slowly misses
 * messages; it never slows the others down, because every position is published again within a
 * second.
 */
import { encodeHex } from "../libs/utils/hex.ts";
import type { WireTimelineKey, WireTypedMessage } from "./messages.ts";

/** Messages that may wait for a subscriber of one timeline. */
export const TIMELINE_QUEUE_LIMIT = 32;
/** Messages that may wait for a subscriber of all timelines. */
const ALL_QUEUE_LIMIT = 16384;

/** One listener. */
export interface Subscriber {
  /** Undefined: all timelines. */
  readonly timeline: string | undefined;
  /** Undefined: all types. */
  readonly types: ReadonlySet<string> | undefined;
  /** Messages handed over and not yet taken by its connection. */
  queued(): number;
  send(message: WireTypedMessage): void;
}

/** Key of a timeline on the wire; undefined where there is none. */
export function timelineKey(wire: WireTimelineKey | null | undefined): string | undefined {
  if (wire === null || wire === undefined || wire.tenant_id.length !== 16) return undefined;
  return encodeHex(wire.tenant_id) + encodeHex(wire.timeline_id);
}

function keyOf(message: WireTypedMessage): string | undefined {
  return timelineKey(
    (message.safekeeper_timeline_info ?? message.safekeeper_discovery_request ??
      message.safekeeper_discovery_response)?.tenant_timeline_id,
  );
}

/** Fans messages out. */
export class SubscriberRegistry {
  readonly #all = new Set<Subscriber>();
  readonly #byTimeline = new Map<string, Set<Subscriber>>();
  #dropped = 0;

  /** Messages that slow subscribers missed. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Number of subscribers. */
  get size(): number {
    let count = this.#all.size;
    for (const subscribers of this.#byTimeline.values()) count += subscribers.size;
    return count;
  }

  /** Adds a subscriber; the returned function takes it away again. */
  add(subscriber: Subscriber): () => void {
    const timeline = subscriber.timeline;
    if (timeline === undefined) {
      this.#all.add(subscriber);
      return () => this.#all.delete(subscriber);
    }
    const subscribers = this.#byTimeline.get(timeline) ?? new Set();
    this.#byTimeline.set(timeline, subscribers.add(subscriber));
    return () => {
      subscribers.delete(subscriber);
      if (subscribers.size === 0) this.#byTimeline.delete(timeline);
    };
  }

  /** Hands a message to everyone who wants it. */
  publish(message: WireTypedMessage): void {
    for (const subscriber of this.#all) this.#offer(subscriber, message, ALL_QUEUE_LIMIT);
    const key = keyOf(message);
    if (key === undefined) return;
    for (const subscriber of this.#byTimeline.get(key) ?? []) {
      this.#offer(subscriber, message, TIMELINE_QUEUE_LIMIT);
    }
  }

  #offer(subscriber: Subscriber, message: WireTypedMessage, limit: number): void {
    if (subscriber.types !== undefined && !subscriber.types.has(message.type)) return;
    if (subscriber.queued() >= limit) {
      this.#dropped++;
      return;
    }
    subscriber.send(message);
  }
}
