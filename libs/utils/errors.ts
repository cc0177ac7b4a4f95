/**
 * The few error classes that callers branch on. Anything else is a built-in class.
 * Messages read "Cannot X: why", name the thing and its current value, and have no trailing period.
 */

/** The thing that was asked for does not exist (HTTP 404). */
export class NotFound extends Error {
  override readonly name: string = "NotFound";
}

/** It exists already, differently, or is held by someone else (HTTP 409). */
export class Conflict extends Error {
  override readonly name: string = "Conflict";
}

/** Stored or received bytes fail a check. Never masked, never retried. */
export class Corrupt extends Error {
  override readonly name: string = "Corrupt";
}

/** The request makes no sense in this state (HTTP 400 or 406). */
export class BadRequest extends Error {
  override readonly name: string = "BadRequest";
}

/** Not now: starting, stopping or overloaded; try again (HTTP 503). */
export class Unavailable extends Error {
  override readonly name: string = "Unavailable";
}

/** A wait reached its limit (HTTP 504). */
export class TimedOut extends Error {
  override readonly name: string = "TimedOut";
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
