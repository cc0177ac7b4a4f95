/**
 * One replay of a recording by our redo, in a process of its own as PostgreSQL's is. Prints what it
 * measured as JSON.
 *
 *   replay_main.ts DIRECTORY [--sample] [--compare RECOVERED]
 *
 * With --sample it measures the share of each resource manager; the clock then costs something, so
 * that the whole is not to be compared. With --compare it compares the pages afterwards.
 */
import process from "node:process";
import { join } from "node:path";
import { decodeControlFile } from "../../libs/postgres/control_file.ts";
import { rmgrName } from "../../libs/postgres/rmgr_names.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { WalFiles } from "../../libs/wal_files/wal_files.ts";
import { ClusterPages } from "../../pageserver/wal_verify/cluster_pages.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { compareWithRecovered, type PagesCompared } from "./compare.ts";
import { Replay } from "./replay.ts";

/** One record in so many is measured: a prime, so that no cycle of the load is in step with it. */
const SAMPLE_EVERY = 61;
const RESOURCE_MANAGERS = 256;

/** Redo of one resource manager's records, estimated from samples. */
interface RmgrShare {
  readonly name: string;
  readonly records: number;
  readonly seconds: number;
}

/** What is printed. */
export interface Replayed {
  readonly records: number;
  readonly walBytes: number;
  readonly endLsn: string;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly pages: number;
  readonly pagesLoaded: number;
  readonly shares?: readonly RmgrShare[];
  readonly compared?: PagesCompared;
}

/** Measures some records. */
class Sampler {
  readonly #records = new Float64Array(RESOURCE_MANAGERS);
  readonly #sampled = new Float64Array(RESOURCE_MANAGERS);
  readonly #ms = new Float64Array(RESOURCE_MANAGERS);
  /** What two looks at the clock cost by themselves. */
  readonly #clockMs: number;
  #next = SAMPLE_EVERY;

  constructor() {
    const looks = Array.from({ length: 10_001 }, () => -performance.now() + performance.now());
    this.#clockMs = looks.sort((a, b) => a - b)[5000]!;
  }

  apply(replay: Replay, cursor: RecordCursor): void {
    const { rmid } = cursor;
    this.#records[rmid]!++;
    if (--this.#next > 0) return replay.apply(cursor);
    this.#next = SAMPLE_EVERY;
    const begun = performance.now();
    replay.apply(cursor);
    this.#ms[rmid]! += Math.max(0, performance.now() - begun - this.#clockMs);
    this.#sampled[rmid]!++;
  }

  shares(): RmgrShare[] {
    return Array.from(this.#records, (records, rmid) => ({
      name: rmgrName(rmid),
      records,
      seconds: this.#ms[rmid]! / 1000 * records / Math.max(1, this.#sampled[rmid]!),
    })).filter(({ records }) => records > 0).sort((a, b) => b.seconds - a.seconds);
  }
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function main(args: readonly string[]): Replayed {
  const directory = args[0]!;
  const baseDir = join(directory, "base");
  const control = decodeControlFile(Deno.readFileSync(join(baseDir, "global", "pg_control")));
  const start = control.checkPointLsn;
  const files = WalFiles.open(join(directory, "crashed", "pg_wal"));
  const sampler = args.includes("--sample") ? new Sampler() : undefined;
  let records = 0;
  const cpu = cpuSeconds();
  const begun = performance.now();
  using pages = new ClusterPages(baseDir, files.version);
  const replay = new Replay(files.version, (key, page) => pages.read(key, page));
  const end = files.read({ start }, (cursor) => {
    if (sampler === undefined) replay.apply(cursor);
    else sampler.apply(replay, cursor);
    records++;
    return true;
  });
  const seconds = (performance.now() - begun) / 1000;
  const recovered = args[args.indexOf("--compare") + 1];
  return {
    records,
    walBytes: end.lsn - start,
    endLsn: formatLsn(end.lsn),
    seconds,
    cpuSeconds: cpuSeconds() - cpu,
    pages: replay.store.size,
    pagesLoaded: replay.loaded,
    ...(sampler === undefined ? {} : { shares: sampler.shares() }),
    ...(args.includes("--compare")
      ? { compared: compareWithRecovered(replay.store, baseDir, recovered!, files.version) }
      : {}),
  };
}

if (import.meta.main) console.log(JSON.stringify(main(Deno.args)));
