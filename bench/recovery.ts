/**
 * Redo of all WAL to final pages: ours against PostgreSQL's own crash recovery, on the same WAL
 * over the same files, in turns.
 *
 * Stock PostgreSQL is measured with a large shared_buffers, where no page is written on the way (as
 * here), and with the one it ships with. What counts is the time from "redo starts at" to "redo
 * done at"; ours is reading and checking the WAL, reading each page when it is first touched, and
 * redo. CPU time beside it, because that does not depend on what else the machine does. At the end
 * all pages are compared.
 *
 * Run: deno task bench:recovery [--rounds 3] [--megabytes 500] [--workload NAME] [--keep DIR]
 *      [--json FILE]
 * With --keep the recordings stay in DIR, and are used again if they are there.
 */
import { join } from "node:path";
import { postgresUser } from "../cli/control_plane/host_user.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { binariesOf } from "../tests/support/postgres_versions.ts";
import { record, type Recording } from "./recovery/recording.ts";
import type { Replayed } from "./recovery/replay_main.ts";
import { recoverStock, type StockOptions } from "./recovery/stock.ts";
import { type Workload, WORKLOADS } from "./recovery/workloads.ts";
import {
  allowOptions,
  figure,
  figures,
  machine,
  markdownTable,
  numberOption,
  summarise,
  textOption,
  writeJson,
} from "./report.ts";

const PG_MAJOR = 17;
const RECORDING_PORT = 57311;
const SHARED_BUFFERS = ["1GB", "128MB"] as const;
const DIFFERENCES_SHOWN = 10;

/** Results of a workload, round by round. */
interface Measured {
  readonly workload: string;
  readonly ours: Replayed[];
  /** By shared_buffers. */
  readonly stock: Record<string, { seconds: number; cpuSeconds: number }[]>;
  readonly sampled: Replayed;
}

/** Runs our replay in a process of its own. */
function replay(directory: string, ...args: string[]): Replayed {
  const program = join(import.meta.dirname!, "recovery", "replay_main.ts");
  const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", program, directory, ...args],
  }).outputSync();
  if (!success) throw new Error(`The replay failed: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout)) as Replayed;
}

/** One recovery of PostgreSQL; `use` may look at its files. */
async function recover(
  recording: Recording,
  options: StockOptions,
  use: (dataDir: string) => void = () => {},
): Promise<{ seconds: number; cpuSeconds: number; endLsn: string }> {
  const { dataDir, seconds, cpuSeconds, endLsn } = await recoverStock(recording, options);
  try {
    use(dataDir);
  } finally {
    Deno.removeSync(dataDir, { recursive: true });
  }
  return { seconds, cpuSeconds, endLsn: formatLsn(endLsn) };
}

function checkPages(compared: Replayed["compared"]): void {
  const { changed, unchanged, differences } = compared!;
  const counts = Object.entries(changed).map(([kind, count]) => `${count} of ${kind}`).join(", ");
  console.log(
    `final pages compared: ${counts}; ${unchanged} that neither changed; ` +
      `${differences.length} differences`,
  );
  if (differences.length > 0) throw new Error(differences.slice(0, DIFFERENCES_SHOWN).join("\n"));
}

async function measure(workload: Workload, directory: string, args: readonly string[]) {
  const user = postgresUser();
  const { binDir } = await binariesOf(PG_MAJOR);
  const rounds = numberOption(args, "rounds", 3);
  const walBytes = numberOption(args, "megabytes", 500) * 1e6;
  const recording = await record(workload, {
    directory,
    binDir,
    user,
    port: RECORDING_PORT,
    walBytes,
  });
  const ours: Replayed[] = [];
  const stock: Measured["stock"] = Object.fromEntries(SHARED_BUFFERS.map((size) => [size, []]));
  for (let round = 0; round < rounds; round++) {
    for (const shared_buffers of SHARED_BUFFERS) {
      const options = {
        binDir,
        user,
        directory,
        port: RECORDING_PORT,
        settings: { shared_buffers },
      };
      const isLast = round === rounds - 1 && shared_buffers === SHARED_BUFFERS[0];
      stock[shared_buffers]!.push(
        await recover(recording, options, (dataDir) => {
          if (isLast) checkPages(replay(directory, "--compare", dataDir).compared);
        }),
      );
    }
    ours.push(replay(directory));
  }
  return { workload: workload.name, ours, stock, sampled: replay(directory, "--sample") };
}

function report({ workload, ours, stock, sampled }: Measured): string {
  const { walBytes, records, pages, pagesLoaded } = ours[0]!;
  const megabytes = walBytes / 1e6;
  const oursRate = summarise(ours.map(({ seconds }) => megabytes / seconds));
  const oursCpu = summarise(ours.map(({ cpuSeconds }) => cpuSeconds));
  const row = (name: string, runs: readonly { seconds: number; cpuSeconds: number }[]) => {
    const rate = summarise(runs.map(({ seconds }) => megabytes / seconds));
    const cpu = summarise(runs.map(({ cpuSeconds }) => cpuSeconds));
    return [
      name,
      figures(rate),
      figure(records / 1e6 * rate.median / megabytes),
      figure(oursRate.median / rate.median),
      figures(cpu),
      figure(cpu.median / oursCpu.median),
    ];
  };
  const head = ["", "MB/s", "M records/s", "ours to it", "CPU s", "ours to it, by CPU"];
  const rates = markdownTable(head, [
    ...Object.entries(stock).map(([size, runs]) => row(`PostgreSQL, shared_buffers=${size}`, runs)),
    row("ours", ours),
  ]);
  const inRedo = sampled.shares!.reduce((sum, { seconds }) => sum + seconds, 0);
  const shares = [...sampled.shares!, {
    name: "reading, CRC, decoding",
    records: sampled.records,
    seconds: Math.max(0, sampled.seconds - inRedo),
  }].map(({ name, records, seconds }) => [
    name,
    String(records),
    figure(seconds),
    figure(seconds / sampled.seconds * 100),
    figure(seconds * 1e9 / records),
  ]);
  return [
    `## ${workload}: ${figure(megabytes)} MB of WAL, ${records} records, ${pages} pages changed, ` +
    `${pagesLoaded} of them read from files`,
    rates,
    markdownTable(["ours, sampled", "records", "s", "%", "ns a record"], shares),
  ].join("\n\n");
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["keep", "megabytes", "rounds", "workload", "json"]);
  const name = textOption(args, "workload");
  const keep = textOption(args, "keep");
  const parent = keep ?? Deno.makeTempDirSync({ prefix: "recovery-" });
  Deno.mkdirSync(parent, { recursive: true });
  Deno.chmodSync(parent, 0o755);
  console.log(machine());
  const all: Measured[] = [];
  try {
    for (const workload of WORKLOADS) {
      if (name !== undefined && workload.name !== name) continue;
      const measured = await measure(workload, join(parent, workload.name), args);
      all.push(measured);
      console.log(`\n${report(measured)}\n`);
    }
  } finally {
    if (keep === undefined) Deno.removeSync(parent, { recursive: true });
  }
  writeJson(args, { machine: machine(), measured: all });
}

if (import.meta.main) await main(Deno.args);
