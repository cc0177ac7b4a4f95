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

/** Who asks is not known: no token, or not a valid one (HTTP 401). */
export class Unauthorized extends Error {
  override readonly name: string = "Unauthorized";
}

/** Who asks is known, and may not do this (HTTP 403). */
export class Forbidden extends Error {
  override readonly name: string = "Forbidden";
}

/** Not now: starting, stopping or overloaded; try again (HTTP 503). */
export class Unavailable extends Error {
  override readonly name: string = "Unavailable";
}

/** A wait reached its limit (HTTP 504). */
export class TimedOut extends Error {
  override readonly name: string = "TimedOut";
}

/** The status that an HTTP API answers with when this was thrown. */
export function httpStatusOf(thrown: unknown): 400 | 401 | 403 | 404 | 409 | 500 | 503 | 504 {
  if (thrown instanceof BadRequest || thrown instanceof SyntaxError) return 400;
  if (thrown instanceof Unauthorized) return 401;
  if (thrown instanceof Forbidden) return 403;
  if (thrown instanceof NotFound) return 404;
  if (thrown instanceof Conflict) return 409;
  if (thrown instanceof Unavailable) return 503;
  return thrown instanceof TimedOut ? 504 : 500;
}

/** The error that an HTTP status stands for: the other direction of httpStatusOf(). */
export function errorOfHttpStatus(status: number, message: string): Error {
  switch (status) {
    case 400:
    case 406:
    case 412:
      return new BadRequest(message);
    case 401:
      return new Unauthorized(message);
    case 403:
      return new Forbidden(message);
    case 404:
      return new NotFound(message);
    case 409:
      return new Conflict(message);
    case 503:
      return new Unavailable(message);
    case 504:
      return new TimedOut(message);
    default:
      return new Error(message);
  }
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
