/**
 * Tells the broker where the timelines stand, so that pageservers know whom to ask for WAL.
 *
 * A timeline that appears or whose commit LSN moves is published at once, and then every 250 ms
 * while it keeps moving, for a second (publish_pace.ts); not at all while a pageserver streams it,
 * which learns of it that way. Once a second everything is published that is in use or that a
 * pageserver does not have durably yet: that also reaches a broker or a pageserver that was
 * restarted. When neither is so any more, that is published as well, for the other safekeepers. Of
 * idle timelines a safekeeper speaks when it starts, and when it hears of one that is behind: then
 * that one knows from whom to catch up.
 */
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import { PublishPace } from "./publish_pace.ts";
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
  readonly #pace = new PublishPace<Timeline>();
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
    if (!this.#pace.changed(timeline)) return;
    this.#publish(timeline);
    this.#coalescing ??= setInterval(() => this.#publishChanged(), COALESCE_MS);
  }

  #publishChanged(): void {
    for (const timeline of this.#pace.round()) this.#publish(timeline);
    if (!this.#pace.isResting) return;
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
