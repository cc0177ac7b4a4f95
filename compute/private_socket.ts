/**
 * Connections to the private Unix sockets of Postgres, under one fixed permission.
 *
 * Deno grants Unix sockets by exact path, and endpoints come and go while the host runs. So the
 * socket is hard-linked, for the moment of connecting, to one path that the host was granted
 * (`--allow-net=unix:<dir>/postgres.sock`); that path is also short, which a socket's path must be.
 */
import { PgClient } from "../libs/pgwire/client.ts";
import { SUPERUSER } from "./postgres_settings.ts";
import { ifThere } from "../libs/utils/if_there.ts";

/** Opens one connection at a time; what is said over it does not hold up the next. */
export class PrivateSocket {
  readonly #path: string;
  #last: Promise<unknown> = Promise.resolve();

  /** `path` is the granted one. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Opens a connection to the socket of Postgres in `directory` as the superuser. It is closed when
   * `signal` aborts, then or later.
   */
  async connect(
    directory: string,
    port: number,
    parameters: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<PgClient> {
    const turn = this.#last.then(() => this.#open(`${directory}/.s.PGSQL.${port}`));
    this.#last = turn.catch(() => {});
    return await PgClient.over(await turn, { user: SUPERUSER, ...parameters }, undefined, signal);
  }

  async #open(socket: string): Promise<Deno.Conn> {
    this.#unlink();
    Deno.linkSync(socket, this.#path);
    try {
      return await Deno.connect({ transport: "unix", path: this.#path });
    } finally {
      this.#unlink();
    }
  }

  #unlink(): void {
    ifThere(() => Deno.removeSync(this.#path));
  }
}
