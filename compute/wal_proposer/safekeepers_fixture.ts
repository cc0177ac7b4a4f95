/** Real safekeepers in this process, one timeline on them, and proposers for it. */
import assert from "node:assert/strict";
import type { InfoSink } from "../../safekeeper/broker_publisher.ts";
import { SafekeeperClient } from "../../safekeeper/client.ts";
import { safekeeperConfig } from "../../safekeeper/config.ts";
import { type Safekeeper, startSafekeeper } from "../../safekeeper/safekeeper.ts";
import { TEST_IDENTITY, withDirectory } from "../../safekeeper/safekeeper_fixture.ts";
import { parseAddress } from "../../libs/utils/address.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { WalProposer } from "./driver.ts";
import type { WalProposerOptions } from "./options.ts";
import type { SafekeeperAddress } from "./safekeeper_link.ts";

/** Where the timeline begins. */
export const START = parseLsn("0/2000028");
/** Longest wait of a test. */
export const WAIT_MS = 10_000;
const NO_BROKER: InfoSink = { publish() {} };

/** Accepts connections and never says a word. */
class HungSafekeeper implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #connections: Promise<void>[] = [];
  readonly #accepting: Promise<void>;
  #left: () => void = () => {};

  constructor(address: string) {
    const { hostname, port } = parseAddress(address);
    this.#listener = Deno.listen({ hostname, port });
    this.#accepting = this.#accept();
  }

  async #accept(): Promise<void> {
    for await (const connection of this.#listener) {
      this.#connections.push((async () => {
        await new Response(connection.readable).arrayBuffer().catch(() => {});
        this.#left();
      })());
    }
  }

  /** Resolves when a client has given up. */
  async abandoned(): Promise<void> {
    await new Promise<void>((resolve) => this.#left = resolve);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#accepting;
    await Promise.all(this.#connections);
  }
}

/** See the head of the file. */
class Cluster {
  readonly tenantId = newTenantId();
  readonly timelineId = newTimelineId();
  readonly #directory: string;
  readonly #running = new Map<number, Safekeeper>();
  readonly #ports = new Map<number, [string, string]>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  async start(id: number): Promise<void> {
    const directory = `${this.#directory}/${id}`;
    Deno.mkdirSync(directory, { recursive: true });
    const [pg, http] = this.#ports.get(id) ?? ["127.0.0.1:0", "127.0.0.1:0"];
    const safekeeper = startSafekeeper(
      directory,
      safekeeperConfig.parse({
        id,
        listen_pg_addr: pg,
        listen_http_addr: http,
        log_level: "error",
      }),
      NO_BROKER,
    );
    this.#running.set(id, safekeeper);
    if (this.#ports.has(id)) return;
    this.#ports.set(id, [safekeeper.pgAddress, safekeeper.httpAddress]);
    await new SafekeeperClient(safekeeper.httpAddress).createTimeline({
      tenantId: this.tenantId,
      timelineId: this.timelineId,
      pgVersion: 170011,
      startLsn: START,
    });
  }

  async stop(id: number): Promise<void> {
    await this.#running.get(id)?.close();
    this.#running.delete(id);
  }

  /** In place of the safekeeper something accepts connections and never says a word. */
  async hang(id: number): Promise<HungSafekeeper> {
    await this.stop(id);
    return new HungSafekeeper(this.#ports.get(id)![0]);
  }

  async close(): Promise<void> {
    for (const id of [...this.#running.keys()]) await this.stop(id);
  }

  /** Where they listen. */
  get safekeepers(): SafekeeperAddress[] {
    return [...this.#ports].map(([id, [pg]]) => ({
      id,
      host: "127.0.0.1",
      pgPort: parseAddress(pg).port,
    }));
  }

  propose(options: Partial<WalProposerOptions> = {}): WalProposer {
    const proposer = new WalProposer({
      tenantId: this.tenantId,
      timelineId: this.timelineId,
      pgVersionNum: 170000,
      walSegmentSize: TEST_IDENTITY.segmentSize,
      safekeepers: this.safekeepers,
      onDeposed: () => {},
      ...options,
    });
    proposer.start();
    return proposer;
  }

  /** Path of a WAL segment on a safekeeper. */
  segmentPath(id: number, name: string): string {
    return `${this.#directory}/${id}/${this.tenantId}/${this.timelineId}/${name}`;
  }

  async flushLsn(id: number): Promise<string> {
    const client = new SafekeeperClient(this.#ports.get(id)![1]);
    return (await client.timelineStatus(this.tenantId, this.timelineId)).flush_lsn;
  }

  async reaches(id: number, lsn: Lsn): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    while (await this.flushLsn(id) !== formatLsn(lsn)) {
      assert.ok(performance.now() < deadline, `safekeeper ${id} reaches ${formatLsn(lsn)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Runs `body` with three safekeepers, 1 to 3. */
export async function withCluster(body: (cluster: Cluster) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    const cluster = new Cluster(directory);
    try {
      for (const id of [1, 2, 3]) await cluster.start(id);
      await body(cluster);
    } finally {
      await cluster.close();
    }
  });
}

/** Hands over WAL as the replication stream does. */
export function write(proposer: WalProposer, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 100_000) {
    proposer.append(proposer.endLsn, bytes.subarray(at, at + 100_000));
  }
  proposer.pump();
}
