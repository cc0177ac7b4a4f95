/**
 * A stock PostgreSQL with two synchronous standbys, on the same machine and disk: streaming
 * replication with fsync=on everywhere. A commit waits until the primary and one of the two have it
 * on disk, so two of three copies, as with three safekeepers.
 */
import type { HostUser } from "../cli/control_plane/host_user.ts";
import type { Target } from "./pgbench.ts";
import { StockPostgres } from "./stock_postgres.ts";

const STANDBYS = ["s1", "s2"] as const;
/** Nothing is archived, so the primary keeps what a standby that lags may still need. */
const SETTINGS = { wal_keep_size: "1GB" };
const IN_FORCE_MS_MAX = 30_000;
const LOOK_MS = 20;

/** See the head of the file. */
export class StockQuorum implements AsyncDisposable {
  readonly #servers: StockPostgres[] = [];

  /** Makes an empty cluster and its standbys under `parent`; needs one port for each of the three. */
  static async start(
    binDir: string,
    user: HostUser | undefined,
    parent: string,
    ports: readonly number[],
  ): Promise<StockQuorum> {
    const quorum = new StockQuorum();
    const servers = quorum.#servers;
    try {
      const primary = await StockPostgres.start(binDir, user, parent, ports[0]!, SETTINGS);
      servers.push(primary);
      for (const [n, name] of STANDBYS.entries()) {
        servers.push(await StockPostgres.startStandby(primary, parent, ports[n + 1]!, name));
      }
      await quorum.#wait(primary);
      return quorum;
    } catch (thrown) {
      await quorum[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** Where clients write. */
  get target(): Target {
    return this.#servers[0]!.target;
  }

  /** The data directories of all three. */
  get dataDirs(): string[] {
    return this.#servers.map(({ dataDir }) => dataDir);
  }

  async #wait(primary: StockPostgres): Promise<void> {
    const client = await primary.connect();
    try {
      const names = `ANY 1 (${STANDBYS.join(", ")})`;
      await client.query("SET synchronous_commit = local");
      await client.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
      await client.query("SELECT pg_reload_conf()");
      const deadline = performance.now() + IN_FORCE_MS_MAX;
      const inForce = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'";
      while ((await client.query(inForce)).rows.length < STANDBYS.length) {
        if (performance.now() > deadline) throw new Error("The standbys are not synchronous");
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    } finally {
      client.close();
    }
  }

  /** Stops all and removes their files. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.reverse()) await server[Symbol.asyncDispose]();
  }
}
