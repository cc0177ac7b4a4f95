/**
 * A stock PostgreSQL for the redo judge: finds binaries, makes a cluster in a temporary directory,
 * starts and stops it, connects over a Unix socket.
 *
 * Postgres refuses to run as root: then it runs as user postgres or nobody, and binaries under a
 * directory closed to that user (/root) are copied to where it can execute them.
 */
import { join } from "node:path";
import { PgClient } from "../../libs/pgwire/client.ts";

const DEFAULT_PORT = "5432";
const USERS = ["postgres", "nobody"];
const READY_ATTEMPTS_MAX = 600;
const READY_PAUSE_MS = 20;

interface User {
  readonly uid: number;
  readonly gid: number;
}

/** A directory with programs of PostgreSQL, and their version: "17.11". */
export interface PostgresBinaries {
  readonly binDir: string;
  readonly version: string;
}

/** PostgreSQL 17 on this machine, one of each minor version, oldest first. */
export function findPostgres17(): PostgresBinaries[] {
  const home = Deno.env.get("HOME") ?? "/root";
  const named = Deno.env.get("NEON_TEST_PG_BIN");
  const caches = [`${home}/.cache/neon/postgres`, "/var/cache/neon/postgres"];
  const candidates = named !== undefined ? named.split(":") : [
    ...caches.flatMap((cache) => directoriesIn(cache)).flatMap((dir) => [`${dir}/bin`]),
    "/usr/lib/postgresql/17/bin",
  ];
  const found = new Map<string, string>();
  for (const binDir of candidates) {
    const version = versionOf(binDir);
    if (version?.startsWith("17.") && !found.has(version)) found.set(version, binDir);
  }
  return [...found].map(([version, binDir]) => ({ binDir, version }))
    .sort((a, b) => Number(a.version.slice(3)) - Number(b.version.slice(3)));
}

function directoriesIn(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].filter((entry) => entry.name.startsWith("17."))
      .map((entry) => join(path, entry.name));
  } catch {
    return [];
  }
}

function versionOf(binDir: string): string | undefined {
  try {
    const output = new Deno.Command(join(binDir, "postgres"), { args: ["--version"] }).outputSync();
    return /\b(\d+\.\d+)/.exec(new TextDecoder().decode(output.stdout))?.[1];
  } catch {
    return undefined;
  }
}

function unprivilegedUser(): User | undefined {
  if (Deno.uid() !== 0) return undefined;
  const lines = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
  for (const name of USERS) {
    const line = lines.find((fields) => fields[0] === name);
    if (line !== undefined) return { uid: Number(line[2]), gid: Number(line[3]) };
  }
  throw new Error("Cannot run Postgres as root: no user postgres or nobody");
}

/** One cluster. */
export class StockPostgres {
  readonly directory: string;
  readonly dataDir: string;
  /** Who connects. */
  superuser = "postgres";
  readonly #user: User | undefined;
  #binDir: string;
  #copies = 0;
  #port = DEFAULT_PORT;
  #process: Deno.ChildProcess | undefined;

  /** Makes a temporary directory and an empty cluster in it, with these options of initdb besides. */
  constructor(binDir: string, options: string[] = []) {
    this.#user = unprivilegedUser();
    this.directory = Deno.makeTempDirSync({ prefix: "redo-judge-" });
    if (this.#user !== undefined) Deno.chownSync(this.directory, this.#user.uid, this.#user.gid);
    this.#binDir = this.#executable(binDir);
    this.dataDir = join(this.directory, "data");
    const args = ["-D", this.dataDir, "-U", "postgres", "-A", "trust", "-N", "--no-locale"];
    this.run("initdb", [...args, "-E", "UTF8", ...options]);
  }

  /** The next start is with these programs, of another minor version. */
  switchTo(binDir: string): void {
    this.#binDir = this.#executable(binDir);
  }

  #executable(binDir: string): string {
    if (this.#user === undefined) return binDir;
    const probe = new Deno.Command(join(binDir, "postgres"), {
      args: ["--version"],
      ...this.#user,
    });
    try {
      if (probe.outputSync().success) return binDir;
    } catch {
      // Not executable for that user: copied below.
    }
    const copy = join(this.directory, `pg${this.#copies++}`);
    new Deno.Command("cp", { args: ["-r", join(binDir, ".."), copy] }).outputSync();
    new Deno.Command("chmod", { args: ["-R", "a+rX", copy] }).outputSync();
    return join(copy, "bin");
  }

  /** Runs a program of the installation to its end. Throws with its output if it fails. */
  run(program: string, args: string[]): void {
    const output = new Deno.Command(join(this.#binDir, program), {
      args,
      cwd: this.directory,
      ...this.#user,
    }).outputSync();
    if (output.success) return;
    const text = new TextDecoder().decode(output.stdout) + new TextDecoder().decode(output.stderr);
    throw new Error(`${program} failed: ${text}`);
  }

  /** Starts the server with these settings and waits until it answers. */
  async start(settings: Record<string, string>): Promise<void> {
    const all = { unix_socket_directories: this.directory, listen_addresses: "", ...settings };
    this.#port = settings["port"] ?? DEFAULT_PORT;
    const args = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    this.#process = new Deno.Command(join(this.#binDir, "postgres"), {
      args: ["-D", this.dataDir, ...args],
      cwd: this.directory,
      stdout: "null",
      stderr: Deno.env.get("REDO_JUDGE_LOG") === "1" ? "inherit" : "null",
      ...this.#user,
    }).spawn();
    for (let attempt = 0; attempt < READY_ATTEMPTS_MAX; attempt++) {
      try {
        (await this.connect()).close();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, READY_PAUSE_MS));
      }
    }
    throw new Error("Cannot start Postgres: it does not answer");
  }

  /** A new session of the superuser. */
  connect(database = "postgres"): Promise<PgClient> {
    return PgClient.connect({ unixPath: join(this.directory, `.s.PGSQL.${this.#port}`) }, {
      user: this.superuser,
      database,
    });
  }

  /** Writes a file that the server can read; returns its path. */
  writeFile(name: string, text: string): string {
    const path = join(this.directory, name);
    Deno.writeTextFileSync(path, text);
    Deno.chmodSync(path, 0o644);
    return path;
  }

  /** Fast shutdown, with its checkpoint; SIGQUIT is one without. */
  async stop(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (process === undefined) return;
    try {
      process.kill(signal);
    } catch {
      // It has ended by itself.
    }
    await process.status;
  }

  /** Copies the stopped cluster's files to `name` in the temporary directory; returns the path. */
  copyData(name: string): string {
    const target = join(this.directory, name);
    const copied = new Deno.Command("cp", { args: ["-r", this.dataDir, target] }).outputSync();
    if (!copied.success) throw new Error("Cannot copy the cluster");
    return target;
  }

  /** Stops and removes everything. */
  async remove(): Promise<void> {
    await this.stop();
    Deno.removeSync(this.directory, { recursive: true });
  }
}
