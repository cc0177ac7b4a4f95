/**
 * Keeps a replica on a safekeeper that serves it: asks all of them now and then, and has the
 * replica go over to another one when source_choice.ts says so.
 *
 * Postgres by itself is not enough. Its WAL receiver goes through the hosts of primary_conninfo
 * when it connects, and so gets away from one that refuses; but it waits for ever for the first
 * answer of one that hangs (PostgreSQL 17, libpqwalreceiver.c, libpqrcv_connect: the loop around
 * PQconnectPoll has no time limit, and connect_timeout is not for it), and stays with one that
 * lives and gets nothing from the primary any more.
 */
import { PgClient } from "../libs/pgwire/client.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { EndpointSpec } from "./client.ts";
import { SILENT_MS, SourceChoice } from "./source_choice.ts";

const log = logger("compute", "replica");

/** Pause between two questions to a safekeeper. */
const ASK_MS = 500;

type Safekeeper = EndpointSpec["safekeepers"][number];

/** See the head of the file. */
export class ReplicaSource {
  readonly #spec: EndpointSpec;
  readonly #token: () => string | undefined;
  readonly #use: (safekeepers: readonly Safekeeper[]) => Promise<void>;
  readonly #choice: SourceChoice;
  readonly #attempts: (AbortController | undefined)[];
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #stopped = false;
  #switching: Promise<void> = Promise.resolve();

  /**
   * The replica streams from the first of the spec's safekeepers now; `use` gives it all of them
   * in another order, of which the first is to be taken. `token` is for safekeepers that want one.
   */
  constructor(
    spec: EndpointSpec,
    token: () => string | undefined,
    use: (safekeepers: readonly Safekeeper[]) => Promise<void>,
  ) {
    this.#spec = spec;
    this.#token = token;
    this.#use = use;
    this.#choice = new SourceChoice(spec.safekeepers.length, performance.now());
    this.#attempts = spec.safekeepers.map(() => undefined);
  }

  /** Watches from now on. */
  start(): void {
    for (let index = 0; index < this.#attempts.length; index++) void this.#ask(index);
  }

  /** Watches no more; resolves when nothing changes any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const attempt of this.#attempts) attempt?.abort();
    await this.#switching;
  }

  /** Asks one safekeeper, again and again. */
  async #ask(index: number): Promise<void> {
    let client: PgClient | undefined;
    while (!this.#stopped) {
      const attempt = this.#attempts[index] ??= new AbortController();
      const limit = setTimeout(() => attempt.abort(), SILENT_MS);
      try {
        client ??= await this.#connect(index, attempt.signal);
        const commitLsn = await committed(client);
        if (commitLsn !== undefined) this.#choice.heard(index, commitLsn, performance.now());
      } catch {
        client?.close();
        client = undefined;
        if (!attempt.signal.aborted) this.#choice.lost(index); // otherwise its silence counts
        attempt.abort();
        this.#attempts[index] = undefined;
      }
      clearTimeout(limit);
      this.#look();
      await this.#pause();
    }
    client?.close();
  }

  #connect(index: number, signal: AbortSignal): Promise<PgClient> {
    const { tenant_id, timeline_id, endpoint_id, safekeepers } = this.#spec;
    const { host, pg_port } = safekeepers[index]!;
    return PgClient.connect(
      { hostname: host, port: pg_port },
      {
        user: "replica",
        database: "replication",
        application_name: endpoint_id,
        options: `-c timeline_id=${timeline_id} -c tenant_id=${tenant_id}`,
      },
      signal,
      this.#token,
    );
  }

  #pause(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        resolve();
      }, ASK_MS);
      this.#timers.add(timer);
    });
  }

  #look(): void {
    if (this.#stopped || !this.#choice.look(performance.now())) return;
    const { endpoint_id: endpoint, safekeepers } = this.#spec;
    const { current } = this.#choice;
    const order = [safekeepers[current]!, ...safekeepers.filter((_, index) => index !== current)];
    log.warning(
      "{endpoint} goes over to safekeeper {id}: the one before has ended, hangs or is behind",
      {
        endpoint,
        id: order[0]!.id,
      },
    );
    this.#switching = this.#switching.then(() => this.#use(order)).catch((thrown) => {
      log.error("{endpoint} cannot go over to another safekeeper: {why}", {
        endpoint,
        why: messageOf(thrown),
      });
    });
  }
}

/** What a safekeeper knows to be committed; undefined if it does not have the timeline. */
async function committed(client: PgClient): Promise<Lsn | undefined> {
  const { columns, rows } = await client.query("TIMELINE_STATUS");
  const text = rows[0]?.[columns.indexOf("commit_lsn")];
  return typeof text === "string" ? parseLsn(text) : undefined;
}
