/**
 * For tests: Postgres in a temporary directory, started through the launcher, with or without lazy
 * files. As root it runs as user postgres or nobody, whom the launcher changes to.
 */
import { join } from "node:path";
import { PgClient } from "../../libs/pgwire/client.ts";

/** The launcher in the source tree. */
export const LAUNCHER = join(import.meta.dirname!, "../launcher/neon_launch.sh");
const READY_ATTEMPTS_MAX = 500;
const READY_PAUSE_MS = 10;

/** Settings of the compute host that matter here. */
const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  restart_after_crash: "off",
  listen_addresses: "",
  shared_buffers: "16MB",
};

/** A user and a group. */
interface Owner {
  readonly uid: number;
  readonly gid: number;
}

function unprivilegedUser(): Owner | undefined {
  if (Deno.uid() !== 0) return undefined;
  const users = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
  const user = users.find(([name]) => name === "postgres") ??
    users.find(([name]) => name === "nobody");
  if (user === undefined) throw new Error("Cannot run Postgres as root: there is nobody else");
  return { uid: Number(user[2]), gid: Number(user[3]) };
}

function runSync(program: string, args: string[], owner: Owner | undefined, cwd = "/"): string {
  const { success, stdout, stderr } = new Deno.Command(program, { args, cwd, ...owner })
    .outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Cannot run ${program}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** One data directory, and Postgres on it when started. */
export class Cluster {
  readonly directory: string;
  readonly pgdata: string;
  readonly owner: Owner | undefined;
  /** Programs that `owner` can execute. */
  readonly binDir: string;
  /** Of PostgreSQL. */
  readonly major: number;
  #process: Deno.ChildProcess | undefined;
  #status: Promise<Deno.CommandStatus> | undefined;

  constructor(binDir: string) {
    this.owner = unprivilegedUser();
    this.directory = Deno.makeTempDirSync({ prefix: "lazy-files-" });
    this.pgdata = join(this.directory, "pgdata");
    this.give(this.directory);
    this.binDir = this.#executable(binDir);
    const version = runSync(join(this.binDir, "postgres"), ["--version"], this.owner);
    this.major = Number(/\) (\d+)/.exec(version)![1]);
  }

  /** `binDir`, or a copy of the installation where our user cannot reach that. */
  #executable(binDir: string): string {
    try {
      runSync(join(binDir, "postgres"), ["--version"], this.owner);
      return binDir;
    } catch {
      const copy = join(this.directory, "pg");
      runSync("cp", ["-r", join(binDir, ".."), copy], undefined);
      runSync("chmod", ["-R", "a+rX", copy], undefined);
      return join(copy, "bin");
    }
  }

  /** Makes an empty cluster. */
  initdb(): void {
    const args = ["-D", this.pgdata, "-U", "postgres", "-A", "trust", "-N", "--no-locale"];
    runSync(join(this.binDir, "initdb"), [...args, "-E", "UTF8"], this.owner, this.directory);
  }

  /** Gives a file to Postgres's user. */
  give(path: string): void {
    if (this.owner !== undefined) Deno.chownSync(path, this.owner.uid, this.owner.gid);
  }

  get log(): string {
    return Deno.readTextFileSync(join(this.directory, "log"));
  }

  /** The launcher's arguments before PGDATA, and its ARENA. */
  protected lazyArguments(): { options: string[]; arena: string } {
    return { options: [], arena: "-" };
  }

  /** Starts Postgres and waits until it answers; returns the milliseconds it took. */
  async start(settings: Record<string, string> = {}): Promise<number> {
    const began = performance.now();
    const all = {
      ...SETTINGS,
      // I/O workers would share a scan among connections: slower, cold and warm.
      ...(this.major >= 18 ? { io_method: "sync" } : {}),
      unix_socket_directories: this.directory,
      ...settings,
    };
    const { options, arena } = this.lazyArguments();
    const log = join(this.directory, "log");
    const user = this.owner === undefined ? ["-", "-"] : [`${this.owner.uid}`, `${this.owner.gid}`];
    this.#process = new Deno.Command(LAUNCHER, {
      args: [
        ...["start", ...options, this.pgdata, log, arena, this.binDir, ...user, "--"],
        ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#status = this.#process.status;
    await this.waitUntilReady();
    return performance.now() - began;
  }

  /** Waits until a query is answered. */
  async waitUntilReady(): Promise<void> {
    let ended = false;
    void this.#status!.then(() => ended = true);
    for (let attempt = 0; attempt < READY_ATTEMPTS_MAX && !ended; attempt++) {
      try {
        await this.query("SELECT 1");
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, READY_PAUSE_MS));
      }
    }
    throw new Error(`Cannot start Postgres: ${this.log}`);
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
