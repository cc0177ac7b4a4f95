/**
 * What a server that wants tokens checks them with: its public keys, read at its start and again
 * when it is told to. Loaded only where authentication is on.
 */
import type { PgAccess } from "../pgwire/server.ts";
import { Unauthorized } from "../utils/errors.ts";
import { authorize, type Claims, type Needed, type Server } from "./access.ts";
import { readClaims } from "./claims.ts";
import { verifiedClaims } from "./jwt.ts";
import { readPublicKeys } from "./keys.ts";

/** See the head of the file. */
export class Authenticator {
  readonly #server: Server;
  readonly #keyPath: string;
  #keys: readonly CryptoKey[];

  private constructor(server: Server, keyPath: string, keys: readonly CryptoKey[]) {
    this.#server = server;
    this.#keyPath = keyPath;
    this.#keys = keys;
  }

  /** Reads the public keys at `keyPath`, a file or a directory. Throws BadRequest. */
  static async open(server: Server, keyPath: string): Promise<Authenticator> {
    return new Authenticator(server, keyPath, await readPublicKeys(keyPath));
  }

  /** Reads the keys again; returns how many there are. Throws BadRequest, and keeps the old ones. */
  async reload(): Promise<number> {
    this.#keys = await readPublicKeys(this.#keyPath);
    return this.#keys.length;
  }

  /** What the token says. Throws Unauthorized. */
  async authenticate(token: string): Promise<Claims> {
    const json = await verifiedClaims(this.#keys, token);
    return readClaims(json, this.#server, Date.now() / 1000);
  }

  /** Checks an HTTP or gRPC request by its header. Throws Unauthorized or Forbidden. */
  async check(authorization: string | undefined, needed: Needed): Promise<void> {
    const token = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
    if (token === undefined) {
      throw new Unauthorized("Cannot authenticate: the request has no bearer token");
    }
    authorize(this.#server, await this.authenticate(token), needed);
  }

  /** What a connection may touch whose password is this token. Throws Unauthorized. */
  async login(token: string): Promise<PgAccess> {
    const claims = await this.authenticate(token);
    return {
      checkTenant: (tenantId) => authorize(this.#server, claims, { of: "tenant data", tenantId }),
    };
  }
}
