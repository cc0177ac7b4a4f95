/**
 * What a page costs the page service: whole tables read in order by pipelined runs, as the lazy
 * file library asks for them, and single pages far from each other. One process serves, this one
 * asks; CPU is that of the server alone, and stands also while other work shares the machine.
 *
 * Cold: a new process, and nothing of its layer files in the operating system's page cache.
 *
 * Run: deno task bench:pages [--pages 32768] [--rounds 3] [--run 128] [--profile DIRECTORY]
 */
import { join } from "node:path";
import { PageStream } from "./page_service/stream.ts";
import { COPIED, IMPORTED, makeTables, type Tables } from "./page_service/tables.ts";
import {
  allowOptions,
  figure,
  machine,
  markdownTable,
  numberOption,
  summarise,
  textOption,
  writeJson,
} from "./report.ts";
import { dropFromPageCache } from "./suite/page_cache.ts";

const SINGLE_PAGES = 2000;
const MB_PER_PAGE = 8192 / 1e6;

/** A server that is running. */
interface Server {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

async function startServer(directory: string, tables: Tables, profile?: string): Promise<Server> {
  const script = join(import.meta.dirname!, "page_service", "server.ts");
  const profiling = profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", ...profiling, script, directory, tables.tenantId],
    stdout: "piped",
    stdin: "null",
  }).spawn();
  const output = child.stdout.getReader();
  const { value } = await output.read();
  const port = Number(new TextDecoder().decode(value));
  return {
    pid: child.pid,
    port,
    async stop() {
      child.kill("SIGTERM");
      await child.status;
      await output.cancel();
    },
  };
}

/** Microseconds of CPU of all threads of a process. */
function cpuUs(pid: number): number {
  let ns = 0;
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    ns += Number(Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ")[0]);
  }
  return ns / 1000;
}

/** Of the process itself, without the program file that all Deno processes share. */
function ownMegabytes(pid: number): number {
  const kilobytes = /^RssAnon:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  return Number(kilobytes?.[1]) / 1024;
}

/** What one reading of some pages cost. */
interface Cost {
  readonly what: string;
  readonly cpuUs: number;
  readonly wallUs: number;
  readonly ownMegabytes: number;
}

async function costOf(
  what: string,
  server: Server,
  pages: number,
  read: () => Promise<void>,
): Promise<Cost> {
  const before = cpuUs(server.pid);
  const begun = performance.now();
  await read();
  return {
    what,
    wallUs: (performance.now() - begun) * 1000 / pages,
    cpuUs: (cpuUs(server.pid) - before) / pages,
    ownMegabytes: ownMegabytes(server.pid),
  };
}

/** Reads a table of a new server: once cold, then twice with what the page cache has kept. */
async function measure(
  directory: string,
  tables: Tables,
  name: string,
  rel: number,
  pages: number,
  run: number,
  profile?: string,
): Promise<Cost[]> {
  await dropFromPageCache(directory);
  const server = await startServer(directory, tables, profile);
  const stream = await PageStream.connect(server.port, tables);
  const costs: Cost[] = [];
  try {
    for (const when of ["cold", "again", "third time"]) {
      const scan = () => stream.scan(rel, pages, run);
      costs.push(await costOf(`${name}, scan, ${when}`, server, pages, scan));
    }
  } finally {
    stream.close();
    await server.stop();
  }
  await dropFromPageCache(directory);
  const other = await startServer(directory, tables);
  const singly = await PageStream.connect(other.port, tables);
  try {
    const read = () => singly.single(rel, pages, SINGLE_PAGES);
    costs.push(await costOf(`${name}, single pages, cold`, other, SINGLE_PAGES, read));
  } finally {
    singly.close();
    await other.stop();
  }
  return costs;
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["pages", "profile", "rounds", "run", "json"]);
  const pages = numberOption(args, "pages", 32_768);
  const rounds = numberOption(args, "rounds", 3);
  const run = numberOption(args, "run", 128);
  const profile = textOption(args, "profile");
  const directory = await Deno.makeTempDir({ prefix: "page-service-bench-" });
  console.log(`${pages} pages a table, runs of ${run}; ${machine()}\n`);
  try {
    const tables = await makeTables(directory, pages);
    const costs: Cost[] = [];
    for (let round = 0; round < rounds; round++) {
      for (const [name, rel] of [["images", IMPORTED], ["COPY", COPIED]] as const) {
        costs.push(...await measure(directory, tables, name, rel, pages, run, profile));
      }
    }
    const rows = [...Map.groupBy(costs, ({ what }) => what)].map(([what, of]) => {
      const wallUs = summarise(of.map((cost) => cost.wallUs)).median;
      return [
        what,
        figure(summarise(of.map((cost) => cost.cpuUs)).median),
        figure(wallUs),
        figure(MB_PER_PAGE / wallUs * 1e6),
        figure(summarise(of.map((cost) => cost.ownMegabytes)).median),
      ];
    });
    const head = ["", "CPU us/page", "us/page", "MB/s", "own memory after, MB"];
    console.log(markdownTable(head, rows));
    writeJson(args, costs);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

await main(Deno.args);
