/** Parsers of option values that several commands share; a bad value is wrong usage (exit 2). */
import { InvalidArgumentError } from "./command.ts";
import { messageOf } from "../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { StopMode } from "./control_plane/supervisor.ts";

function orInvalid<T>(parse: () => T): T {
  try {
    return parse();
  } catch (thrown) {
    throw new InvalidArgumentError(messageOf(thrown));
  }
}

/** A whole number from `least` on, up to `most` if that is given. */
export function count(least: number, most?: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= (most ?? Number.MAX_SAFE_INTEGER)) return value;
    const range = most === undefined ? `from ${least} on` : `from ${least} to ${most}`;
    throw new InvalidArgumentError(`expected a whole number ${range}`);
  };
}

/** A TCP port. */
export function port(text: string): number {
  return count(1, 65535)(text);
}

/** Longest time limit: timers count milliseconds in 31 bits. */
const DURATION_MS_MAX = 24 * 3600 * 1000;

/** A time limit such as "10s", "500ms", "1m" or a number of seconds; in milliseconds. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError("expected a duration such as 10s or 500ms");
  const unit = { ms: 1, s: 1000, m: 60_000 }[match[2] ?? "s"]!;
  const ms = Number(match[1]) * unit;
  if (ms <= DURATION_MS_MAX) return ms;
  throw new InvalidArgumentError("expected a duration of at most a day");
}

/** A tenant id. */
export function tenantId(text: string): TenantId {
  return orInvalid(() => parseTenantId(text));
}

/** A timeline id. */
export function timelineId(text: string): TimelineId {
  return orInvalid(() => parseTimelineId(text));
}

/** An LSN. */
export function lsn(text: string): Lsn {
  return orInvalid(() => parseLsn(text));
}

const AGO = /^(\d{1,9}) ?(second|minute|hour|day|week)s? ago$/i;
const SECONDS = { second: 1, minute: 60, hour: 3600, day: 86_400, week: 604_800 } as const;

/** A moment: RFC 3339 (as PostgreSQL writes it, too), or so long ago. */
export function time(text: string): Temporal.Instant {
  const [, count, unit] = AGO.exec(text.trim()) ?? [];
  if (count !== undefined && unit !== undefined) {
    const seconds = Number(count) * SECONDS[unit.toLowerCase() as keyof typeof SECONDS];
    return Temporal.Now.instant().subtract({ seconds });
  }
  try {
    return Temporal.Instant.from(text.trim());
  } catch {
    throw new InvalidArgumentError(
      'expected a time with its offset, such as 2026-11-21T17:46:15Z, or "5 minutes ago"',
    );
  }
}

/** "true" or "false". */
export function trueOrFalse(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new InvalidArgumentError('expected "true" or "false"');
}

/** Gathers an option that may be repeated. */
export function repeated(text: string, before: string[] | undefined): string[] {
  return [...before ?? [], text];
}

/** How to stop. */
export function stopMode(text: string): StopMode {
  if (text === "fast" || text === "immediate") return text;
  throw new InvalidArgumentError('expected "fast" or "immediate"');
}
