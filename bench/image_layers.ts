/**
 * Compaction: what it costs, and what first reads gain. pgbench's accounts after COPY, then after
 * transactions that each change one row anywhere (delta layers become one in key order), then after
 * updates all over the table, in several delta layers (images): pages of the table read from the
 * page service with nothing cached anywhere, in order and one by one far from each other, before
 * and after; and meanwhile the pages of another client.
 *
 * CPU is that of the pageserver's process, and stands also while other work shares the machine.
 *
 * Run: deno task bench:images [--scale 20] [--transactions 30000] [--updates 4]
 * [--json FILE]
 */
import { pageserverClient } from "../cli/control_plane/clients.ts";
import { daemonPid } from "../cli/control_plane/supervisor.ts";
import { allRoles } from "../cli/control_plane/lifecycle.ts";
import { type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import { DEFAULT_TABLESPACE, FORK_MAIN } from "../libs/postgres/constants.ts";
import type { RelTag } from "../libs/postgres/relation.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import type { CreatedTenant } from "../mod.ts";
import type { CompactionResult } from "../pageserver/client.ts";
import { PageServiceClient } from "../tests/page_oracle/page_service.ts";
import { endpointTarget, query, settle, timedMs } from "./our_side.ts";
import { findPgbench, initialise, transactions } from "./pgbench.ts";
import { allowOptions, figure, machine, markdownTable, numberOption, writeJson } from "./report.ts";
import { dropFromPageCache } from "./suite/page_cache.ts";

/** Pages that are read one by one. */
const SINGLES = 2000;
/** Rows that a round of updates changes: one of so many. */
const UPDATE_EVERY = 10;
const CLIENTS = 8;
/** Pause between two reads of the client beside. */
const READ_PAUSE_MS = 2;
const IDLE_MS = 2000;
const CAUGHT_UP_MS_MAX = 180_000;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The table, as the page service knows it. */
interface Table {
  readonly tag: RelTag;
  readonly blocks: number;
}

/** What a page cost, in microseconds. */
interface PageCost {
  readonly wallUs: number;
  readonly cpuUs: number;
}

/** What one making of image layers gave. */
interface Stage {
  readonly name: string;
  readonly deltaBytes: number;
  readonly made: CompactionResult;
  readonly seconds: number;
  readonly cpuUs: number;
  readonly before: { scan: PageCost; single: PageCost };
  readonly after: { scan: PageCost; single: PageCost };
  /** Milliseconds of each page of another client. */
  readonly idle: number[];
  readonly beside: number[];
}

class Bench {
  readonly #local: LocalNeon;
  readonly #tenant: CreatedTenant;

  constructor(local: LocalNeon, tenant: CreatedTenant) {
    this.#local = local;
    this.#tenant = tenant;
  }

  get #pageserver() {
    return pageserverClient(this.#local.environment());
  }

  /** Where the table is, with all that was written on disk. */
  async table(port: number): Promise<Table> {
    await settle(this.#local, this.#tenant, CAUGHT_UP_MS_MAX);
    const { tenantId, timelineId } = this.#tenant;
    await this.#pageserver.checkpoint(tenantId, timelineId);
    const [row] = await query(
      endpointTarget(port),
      "SELECT pg_relation_filenode('pgbench_accounts'), oid FROM pg_database " +
        "WHERE datname = current_database()",
    );
    const [rel, db] = row!.map(Number);
    const tag = { spc: DEFAULT_TABLESPACE, db: db!, rel: rel!, fork: FORK_MAIN };
    const client = await this.#connect();
    const blocks = await client.blocks(tag);
    client.close();
    return { tag, blocks };
  }

  /** Makes what is due, with reads before, meanwhile and afterwards. */
  async stage(name: string, table: Table): Promise<Stage> {
    const { tenantId, timelineId } = this.#tenant;
    const before = await this.#firstReads(table);
    const { current_physical_size: deltaBytes } = await this.#pageserver.timeline(
      tenantId,
      timelineId,
    );
    const idle = await this.#readBeside(table, sleep(IDLE_MS));
    let made: CompactionResult | undefined;
    let ms = 0;
    const cpuBefore = this.#cpuUs();
    const beside = await this.#readBeside(
      table,
      (async () => {
        ms = await timedMs(async () => {
          made = await this.#pageserver.compact(tenantId, timelineId, false);
        });
      })(),
    );
    const cpuUs = this.#cpuUs() - cpuBefore;
    const after = await this.#firstReads(table);
    return {
      name,
      deltaBytes,
      made: made!,
      seconds: ms / 1000,
      cpuUs,
      before,
      after,
      idle,
      beside,
    };
  }

  async #firstReads(table: Table): Promise<{ scan: PageCost; single: PageCost }> {
    const { tag, blocks } = table;
    const scan = await this.#cold(blocks, (client) => client.pages(tag, blocks, checkPage));
    const single = await this.#cold(SINGLES, async (client) => {
      for (let n = 0; n < SINGLES; n++) {
        await client.page(tag, (Math.imul(n, 0x9e3779b1) >>> 0) % blocks);
      }
    });
    return { scan, single };
  }

  async #cold(
    pages: number,
    read: (client: PageServiceClient) => Promise<void>,
  ): Promise<PageCost> {
    await this.#local.stop();
    await dropFromPageCache(this.#local.directory);
    await this.#local.start();
    const client = await this.#connect();
    const cpuBefore = this.#cpuUs();
    const ms = await timedMs(() => read(client));
    client.close();
    return { wallUs: ms * 1000 / pages, cpuUs: (this.#cpuUs() - cpuBefore) / pages };
  }

  async #readBeside({ tag, blocks }: Table, work: Promise<unknown>): Promise<number[]> {
    let isDone = false;
    const ended = work.finally(() => isDone = true);
    const client = await this.#connect();
    const taken: number[] = [];
    while (!isDone) {
      const block = Math.floor(Math.random() * blocks);
      taken.push(await timedMs(() => client.page(tag, block)));
      await sleep(READ_PAUSE_MS);
    }
    client.close();
    await ended;
    return taken;
  }

  /** As of what is on disk: what images can be of. */
  async #connect(): Promise<PageServiceClient> {
    const { tenantId: tenant, timelineId: timeline } = this.#tenant;
    const { disk_consistent_lsn } = await this.#pageserver.timeline(tenant, timeline);
    const address = this.#local.environment().config.pageservers[0]!.listen_pg_addr;
    const lsn = parseLsn(disk_consistent_lsn);
    return await PageServiceClient.connect({ address, tenant, timeline }, lsn);
  }

  /** Microseconds of CPU of all threads of the pageserver. */
  #cpuUs(): number {
    const role = allRoles(this.#local.environment()).find(({ name }) => name === "pageserver")!;
    const path = `/proc/${daemonPid(role)}/stat`;
    const [user, system] = Deno.readTextFileSync(path).split(") ")[1]!.split(" ").slice(11, 13);
    return (Number(user) + Number(system)) * 10_000;
  }
}

function checkPage(block: number, page: Uint8Array | string): void {
  if (typeof page === "string") throw new Error(`block ${block}: ${page}`);
}

function quantiles(taken: readonly number[]): string[] {
  const sorted = taken.toSorted((a, b) => a - b);
  return [0.5, 0.99, 1].map((share) => figure(sorted[Math.floor((sorted.length - 1) * share)]!));
}

function show(stage: Stage): string {
  const { name, made, seconds, before, after } = stage;
  const megabytes = (made.image_bytes + made.delta_bytes) / 1e6;
  const row = (what: string, a: PageCost, b: PageCost) => [
    what,
    ...[a.wallUs, b.wallUs, a.cpuUs, b.cpuUs].map(figure),
  ];
  return `## ${name}\n\n${figure(stage.deltaBytes / 1e6)} MB of layers before; ` +
    `${made.image_layers} image layers, ${made.image_pages} pages, ` +
    `${figure(made.image_bytes / 1e6)} MB; ${made.replaced_delta_layers} delta layers became ` +
    `${made.delta_layers}, ${figure(made.delta_bytes / 1e6)} MB; ${figure(seconds)} s: ` +
    `${figure(megabytes / seconds)} MB/s, CPU of the whole process ` +
    `${figure(stage.cpuUs / 1000 / megabytes)} ms for one MB\n\n` +
    markdownTable(["us a page", "before", "after", "CPU before", "CPU after"], [
      row("cold, in order", before.scan, after.scan),
      row("cold, one by one", before.single, after.single),
    ]) + "\n\n" +
    markdownTable(["ms, another client", "count", "p50", "p99", "max"], [
      ["idle", String(stage.idle.length), ...quantiles(stage.idle)],
      ["meanwhile", String(stage.beside.length), ...quantiles(stage.beside)],
    ]) + "\n";
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["scale", "transactions", "updates", "json"]);
  const scale = numberOption(args, "scale", 20);
  const count = numberOption(args, "transactions", 30_000);
  const updates = numberOption(args, "updates", 4);
  console.log(machine());
  await using local = await startLocalNeon();
  const tenant = await local.createTenant({
    setDefault: true,
    settings: { compaction_period: "0s" },
  });
  const bench = new Bench(local, tenant);
  const stages: Stage[] = [];
  const run = async (name: string, port: number) => {
    const stage = await bench.stage(name, await bench.table(port));
    stages.push(stage);
    console.log(show(stage));
  };
  let { port } = await local.startEndpoint("main");
  await initialise(findPgbench(), endpointTarget(port), scale);
  await run(`COPY of scale ${scale}`, port);
  ({ port } = await local.startEndpoint("main"));
  if (count > 0) {
    await transactions(findPgbench(), endpointTarget(port), CLIENTS, count);
    await run(`${count} transactions of TPC-B`, port);
    ({ port } = await local.startEndpoint("main"));
  }
  for (let n = 0; n < updates; n++) {
    await query(
      endpointTarget(port),
      `UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % ${UPDATE_EVERY} = ${n}`,
    );
    await bench.table(port); // each in a layer of its own
  }
  if (updates > 0) await run(`${updates} updates of each ${UPDATE_EVERY}th row`, port);
  writeJson(args, { machine: machine(), scale, count, updates, stages });
}

if (import.meta.main) await main(Deno.args);
