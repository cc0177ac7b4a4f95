/** Authentication of a daemon, as its settings have it: off without a path of public keys. */
import type { Server } from "../auth/access.ts";
import type { Authenticator } from "../auth/authenticator.ts";

/** Opens the keys at `keyPath`; undefined, and nothing loaded, without one. Throws BadRequest. */
export async function openAuthenticator(
  server: Server,
  keyPath: string | undefined,
): Promise<Authenticator | undefined> {
  if (keyPath === undefined) return undefined;
  const { Authenticator } = await import("../auth/authenticator.ts");
  return await Authenticator.open(server, keyPath);
}
