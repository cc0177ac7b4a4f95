/** Where a client has the token from that it shows to servers. */
import { BadRequest, messageOf } from "./errors.ts";

/**
 * Asked before each request or connection: a token may be replaced while the program runs.
 * Undefined where no token is known.
 */
export type TokenSource = () => string | undefined | Promise<string | undefined>;

/** Reads it from a file, each time anew. Undefined for no file. Throws BadRequest when asked. */
export function tokenFile(path: string | undefined): (() => string) | undefined {
  if (path === undefined) return undefined;
  return () => {
    try {
      return Deno.readTextFileSync(path).trim();
    } catch (thrown) {
      throw new BadRequest(`Cannot read the token in "${path}": ${messageOf(thrown)}`);
    }
  };
}
