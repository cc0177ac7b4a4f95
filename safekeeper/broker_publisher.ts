/**
 * Tells the broker where the timelines stand, so that pageservers know whom to ask for WAL.
 *
 * A timeline that appears or whose commit LSN moves is published at once, and then at most every
 * 250 ms while it keeps moving; not at all while a pageserver streams it, which learns of it that
 * way. Once a second everything is published that is in use or that a pageserver does not have
 * durably yet: that also reaches a broker or a pageserver that was restarted. When neither is so
 * any more, that is published as well, for the other safekeepers. Of idle timelines a safekeeper
 * speaks when it starts, and when it hears of one that is behind: then that one knows from whom to
 * catch up.
 */
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import type { Timeline } from "./timeline.ts";
import { brokerInfo, type PublishedIdentity } from "./timeline_info.ts";

const COALESCE_MS = 250;
const REPEAT_MS = 1000;

/** The part of the broker's client that is used here. */
export interface InfoSink {
  publish(info: SafekeeperTimelineInfo): void;
}

/** See the head of this file. */
export class BrokerPublisher {
  readonly #broker: InfoSink;
  readonly #identity: PublishedIdentity;
  /** Published within the last COALESCE_MS; true if changed since. */
  readonly #recent = new Map<Timeline, boolean>();
  /** Active in the last regular round. */
  #active = new Set<Timeline>();
  #coalescing: ReturnType<typeof setInterval> | undefined;
  #repeating: ReturnType<typeof setInterval> | undefined;

  constructor(broker: InfoSink, identity: PublishedIdentity) {
    this.#broker = broker;
    this.#identity = identity;
  }

  /** Publishes a timeline that changed, now or soon. */
  changed(timeline: Timeline): void {
    for (const receiver of timeline.receivers) if (receiver.isPageserver) return;
    this.publishSoon(timeline);
  }

  /** Publishes a timeline, now or soon, though it may be idle. */
  publishSoon(timeline: Timeline): void {
    if (this.#recent.has(timeline)) {
      this.#recent.set(timeline, true);
      return;
    }
    this.#publish(timeline);
    this.#recent.set(timeline, false);
    this.#coalescing ??= setInterval(() => this.#publishRecent(), COALESCE_MS);
  }

  #publishRecent(): void {
    for (const [timeline, changedSince] of this.#recent) {
      if (changedSince) {
        this.#recent.set(timeline, false);
        this.#publish(timeline);
      } else this.#recent.delete(timeline);
    }
    if (this.#recent.size > 0) return;
    clearInterval(this.#coalescing);
    this.#coalescing = undefined;
  }

  /** Starts the regular round over `timelines`. */
  start(timelines: () => Iterable<Timeline>): void {
    this.#repeating = setInterval(() => {
      const active = new Set<Timeline>();
      for (const timeline of timelines()) {
        if (timeline.active) active.add(timeline);
        if (timeline.active || this.#active.has(timeline)) this.#publish(timeline);
      }
      this.#active = active;
    }, REPEAT_MS);
  }

  #publish(timeline: Timeline): void {
    this.#broker.publish(brokerInfo(timeline, this.#identity));
  }

  /** Stops. */
  close(): void {
    clearInterval(this.#coalescing);
    clearInterval(this.#repeating);
  }
}
