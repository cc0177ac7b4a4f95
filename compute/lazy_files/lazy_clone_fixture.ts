/**
 * For tests: a lazy clone of a cleanly stopped data directory. Everything but the relation files is
 * copied, those are laid out empty; Postgres runs on it through the launcher.
 */
import { join } from "node:path";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { LazyFilesMap, LazyFork } from "../../libs/basebackup/lazy_files_map.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { parseRelationPath } from "../../libs/postgres/relation.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { type Lsn, toLsn } from "../../libs/utils/lsn.ts";
import { type ArenaStatistics, readArenaStatistics } from "./arena.ts";
import { NATIVE, prebuiltLibrary } from "./build.ts";
import { type LaidOut, layOutFiles, type LayOutOptions } from "./lay_out.ts";

export const LAUNCHER = join(import.meta.dirname!, "../launcher/neon_launch.sh");
const READY_ATTEMPTS_MAX = 500;
const READY_PAUSE_MS = 10;

/** Settings of the compute host that matter here (compute.md of the design). */
const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  restart_after_crash: "off",
  listen_addresses: "",
  shared_buffers: "16MB",
};

export function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

/** Relative paths of all files and directories under `root`. */
function* walk(root: string, directory = ""): Generator<{ path: string; isDirectory: boolean }> {
  for (const { name, isDirectory } of Deno.readDirSync(join(root, directory))) {
    const path = directory === "" ? name : `${directory}/${name}`;
    yield { path, isDirectory };
    if (isDirectory) yield* walk(root, path);
  }
}

/** The map of a stopped data directory. */
export function scanRelationFiles(pgdata: string, lsn: Lsn): LazyFilesMap {
  const forks = new Map<string, LazyFork>();
  for (const { path, isDirectory } of walk(pgdata)) {
    const parsed = isDirectory ? undefined : parseRelationPath(path);
    if (parsed === undefined) continue;
    const { tag, segment } = parsed;
    const key = JSON.stringify(tag);
    const pages = Deno.statSync(join(pgdata, path)).size / PAGE_SIZE;
    const blocks = segment * RELATION_SEGMENT_PAGES + pages;
    forks.set(key, { ...tag, blocks: Math.max(blocks, forks.get(key)?.blocks ?? 0) });
  }
  return { lsn, prevLsn: lsn, pgMajor: 17, forks: [...forks.values()] };
}

/** Who a cluster's files belong to, if that is not us. */
function ownerOf(path: string): { uid: number; gid: number } | undefined {
  const { uid, gid } = Deno.statSync(path);
  return uid === Deno.uid() ? undefined : { uid: uid!, gid: gid! };
}

/** One clone. */
export class LazyClone {
  readonly directory: string;
  readonly pgdata: string;
  readonly arenaPath: string;
  readonly laidOut: LaidOut;
  readonly #binDir: string;
  readonly #owner: { uid: number; gid: number } | undefined;
  #process: Deno.ChildProcess | undefined;
  #status: Promise<Deno.CommandStatus> | undefined;

  /** Lays a clone of `source` out under a new temporary directory. */
  constructor(
    source: string,
    binDir: string,
    pageserver: LayOutOptions["pageserver"],
    options: Partial<LayOutOptions> = {},
  ) {
    this.#binDir = binDir;
    this.#owner = ownerOf(source);
    this.directory = Deno.makeTempDirSync({ prefix: "lazy-clone-" });
    this.pgdata = join(this.directory, "pgdata");
    this.arenaPath = join(this.directory, "arena");
    this.#copyOtherFiles(source);
    this.laidOut = layOutFiles({
      pgdata: this.pgdata,
      arenaPath: this.arenaPath,
      map: scanRelationFiles(source, toLsn(0x1000028)),
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pageserver,
      bootId: bootId(),
      ...(this.#owner === undefined ? {} : { owner: this.#owner }),
      ...options,
    });
    // The library beside the directory: Postgres's user may not be able to read the source tree.
    Deno.copyFileSync(prebuiltLibrary(NATIVE), join(this.directory, "library.so"));
    Deno.chmodSync(join(this.directory, "library.so"), 0o755);
  }

  #copyOtherFiles(source: string): void {
    Deno.mkdirSync(this.pgdata, { mode: 0o700 });
    for (const { path, isDirectory } of walk(source)) {
      const to = join(this.pgdata, path);
      if (isDirectory) Deno.mkdirSync(to, { mode: 0o700 });
      else if (parseRelationPath(path) !== undefined) continue;
      else if (path.endsWith("pg_internal.init") || path === "postmaster.opts") continue;
      else Deno.copyFileSync(join(source, path), to);
      this.#give(to);
    }
    this.#give(this.directory);
    this.#give(this.pgdata);
  }

  #give(path: string): void {
    if (this.#owner !== undefined) Deno.chownSync(path, this.#owner.uid, this.#owner.gid);
  }

  get log(): string {
    return Deno.readTextFileSync(join(this.directory, "log"));
  }

  get statistics(): ArenaStatistics {
    return readArenaStatistics(this.arenaPath);
  }

  /** Process id of the postmaster. */
  get pid(): number {
    return this.#process!.pid;
  }

  /** Starts Postgres without waiting for it. */
  launch(settings: Record<string, string> = {}): Promise<Deno.CommandStatus> {
    const all = { ...SETTINGS, unix_socket_directories: this.directory, ...settings };
    const owner = this.#owner ?? { uid: Deno.uid(), gid: Deno.gid() };
    this.#process = new Deno.Command(LAUNCHER, {
      args: [
        "start",
        "--library",
        join(this.directory, "library.so"),
        this.pgdata,
        join(this.directory, "log"),
        this.arenaPath,
        this.#binDir,
        `${owner!.uid}`,
        `${owner!.gid}`,
        "--",
        ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    return this.#status = this.#process.status;
  }

  /** Starts Postgres and waits until it answers; returns the milliseconds it took. */
  async start(settings: Record<string, string> = {}): Promise<number> {
    const began = performance.now();
    let ended = false;
    void this.launch(settings).then(() => ended = true);
    for (let attempt = 0; attempt < READY_ATTEMPTS_MAX && !ended; attempt++) {
      try {
        const client = await this.connect();
        await client.query("SELECT 1");
        client.close();
        return performance.now() - began;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, READY_PAUSE_MS));
      }
    }
    throw new Error(`Cannot start Postgres on a lazy clone: ${this.log}`);
  }

  connect(database = "postgres"): Promise<PgClient> {
    const unixPath = join(this.directory, ".s.PGSQL.5432");
    return PgClient.connect({ unixPath }, { user: "postgres", database });
  }

  /** Runs SQL in a session of its own. */
  async query(sql: string, database = "postgres"): Promise<(string | null)[][]> {
    const client = await this.connect(database);
    try {
      return (await client.query(sql)).rows;
    } finally {
      client.close();
    }
  }

  /** Ends Postgres: SIGINT is a fast shutdown, SIGQUIT an immediate one. */
  async stop(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    if (this.#process === undefined) return;
    try {
      this.#process.kill(signal);
    } catch {
      // it has ended by itself
    }
    await this.#status;
    this.#process = undefined;
  }

  async remove(): Promise<void> {
    await this.stop("SIGQUIT");
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/** Runs a client program of the installation; returns its standard output. Throws if it fails. */
export async function runClient(binDir: string, program: string, args: string[]): Promise<string> {
  const output = await new Deno.Command(join(binDir, program), { args }).output();
  const decoder = new TextDecoder();
  if (!output.success) {
    throw new Error(`Cannot run ${program} ${args.join(" ")}: ${decoder.decode(output.stderr)}`);
  }
  return decoder.decode(output.stdout);
}

/** A dump of everything, in an order that depends on contents only. */
export async function dump(binDir: string, socketDirectory: string): Promise<string> {
  const text = await runClient(binDir, "pg_dumpall", ["-h", socketDirectory, "-U", "postgres"]);
  return text.split("\n").filter((line) => !/^\\(un)?restrict /.test(line)).join("\n");
}
