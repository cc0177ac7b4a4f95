/**
 * Who listens to what: the broker's only state, kept in memory. A message goes to the subscribers
 * of its timeline and to those of all timelines. A subscriber that reads too slowly misses
 * messages; it never slows the others down, because every position is published again within a
 * second.
 */
import { Unavailable } from "../libs/utils/errors.ts";
import type { WireTypedMessage } from "./messages.ts";

/** Messages that may wait for a subscriber of one timeline. */
export const TIMELINE_QUEUE_LIMIT = 32;
/** Messages that may wait for a subscriber of all timelines; each takes some kilobytes. */
const ALL_QUEUE_LIMIT = 4096;
/** Subscribers at the same time; a local Neon has one for each pageserver and safekeeper. */
export const SUBSCRIBERS_MAX = 1024;

/** One listener. */
export interface Subscriber {
  /** Undefined: all timelines. */
  readonly timeline: string | undefined;
  readonly types: ReadonlySet<string>;
  /** Messages handed over and not yet taken by its connection. */
  queued(): number;
  send(message: WireTypedMessage): void;
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

  /** Adds a subscriber; the returned function takes it away again. Throws Unavailable if full. */
  add(subscriber: Subscriber): () => void {
    if (this.size >= SUBSCRIBERS_MAX) {
      throw new Unavailable(`Cannot subscribe: ${SUBSCRIBERS_MAX} others do`);
    }
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

  /** Hands a message about a timeline to everyone who wants it. */
  publish(message: WireTypedMessage, timeline: string): void {
    for (const subscriber of this.#all) this.#offer(subscriber, message, ALL_QUEUE_LIMIT);
    for (const subscriber of this.#byTimeline.get(timeline) ?? []) {
      this.#offer(subscriber, message, TIMELINE_QUEUE_LIMIT);
    }
  }

  #offer(subscriber: Subscriber, message: WireTypedMessage, limit: number): void {
    if (!subscriber.types.has(message.type)) return;
    if (subscriber.queued() >= limit) {
      this.#dropped++;
      return;
    }
    subscriber.send(message);
  }
}
