/**
 * A stock PostgreSQL to compare with: the binaries that the endpoints run, as the same user, on the
 * same disk, with the settings that PostgreSQL ships (fsync=on, full_page_writes=on) apart from
 * those that the endpoints have as well: shared_buffers and max_connections, named below.
 */
import { dirname, join } from "node:path";
import { commandUser, type HostUser } from "../cli/control_plane/host_user.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import type { Target } from "./pgbench.ts";

/** The version that is compared. */
export const PG_MAJOR = 17;

/** Settings that both sides of a comparison are run with. */
export const COMMON_SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: "128MB",
  max_connections: "100",
};

/** The superuser that is made. */
const USER = "cloud_admin";
const READY_MS_MAX = 30_000;
const READY_LOOK_MS = 10;

/** Runs a program to its end. Throws an Error with what it said if it fails. */
function run(program: string, args: string[], options: Deno.CommandOptions = {}): void {
  const { success, stderr } = new Deno.Command(program, { ...options, args }).outputSync();
  if (!success) throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
}

/** One cluster, running. */
export class StockPostgres implements AsyncDisposable {
  readonly target: Target;
  readonly #directory: string;
  readonly #binDir: string;
  readonly #user: HostUser | undefined;
  readonly #settings: Readonly<Record<string, string>>;
  #process: Deno.ChildProcess | undefined;

  private constructor(
    binDir: string,
    user: HostUser | undefined,
    parent: string,
    port: number,
    settings: Readonly<Record<string, string>>,
  ) {
    this.#binDir = binDir;
    this.#user = user;
    this.#settings = settings;
    this.#directory = Deno.makeTempDirSync({ dir: parent, prefix: "stock-" });
    if (user !== undefined) Deno.chownSync(this.#directory, user.uid, user.gid);
    this.target = { port, user: USER, database: "postgres" };
  }

  /**
   * Makes an empty cluster in a new directory under `parent` and starts it, with `settings` beside
   * the common ones.
   */
  static async start(
    binDir: string,
    user: HostUser | undefined,
    parent: string,
    port: number,
    settings: Readonly<Record<string, string>> = {},
    initdb = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"],
  ): Promise<StockPostgres> {
    const stock = new StockPostgres(binDir, user, parent, port, settings);
    try {
      stock.#initdb(initdb);
      await stock.#launch();
      return stock;
    } catch (thrown) {
      await stock[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /**
   * Starts a hot standby of `primary` on a copy of its files, for which that one is stopped for a
   * moment; `name` is what synchronous_standby_names knows it by.
   */
  static async startStandby(
    primary: StockPostgres,
    parent: string,
    port: number,
    name: string,
  ): Promise<StockPostgres> {
    const { user, port: primaryPort } = primary.target;
    const standby = new StockPostgres(primary.#binDir, primary.#user, parent, port, {
      ...primary.#settings,
      primary_conninfo: `host=127.0.0.1 port=${primaryPort} user=${user} application_name=${name}`,
    });
    try {
      await primary.restartAfter(() => standby.#copyOf(primary));
      await standby.#launch();
      return standby;
    } catch (thrown) {
      await standby[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** Starts a copy that pg_basebackup, at the path `program`, makes of the running `primary`. */
  static async startBackup(
    program: string,
    primary: StockPostgres,
    port: number,
  ): Promise<StockPostgres> {
    const { user, port: primaryPort } = primary.target;
    const parent = dirname(primary.#directory);
    const copy = new StockPostgres(primary.#binDir, primary.#user, parent, port, primary.#settings);
    try {
      run(program, [
        ...["-D", copy.dataDir, "-h", "127.0.0.1", "-p", String(primaryPort), "-U", user],
        ...["--checkpoint=fast", "--wal-method=stream"],
      ]);
      copy.#giveToUser();
      await copy.#launch();
      return copy;
    } catch (thrown) {
      await copy[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** pg_basebackup ran as ourselves: where it is, the server's user may have no access. */
  #giveToUser(): void {
    if (this.#user === undefined) return;
    run("chown", ["-R", `${this.#user.uid}:${this.#user.gid}`, this.dataDir]);
  }

  #copyOf(primary: StockPostgres): void {
    run("cp", ["-a", primary.dataDir, this.dataDir]);
    Deno.writeTextFileSync(join(this.dataDir, "standby.signal"), "");
  }

  /** Its data directory. */
  get dataDir(): string {
    return join(this.#directory, "data");
  }

  #initdb(options: readonly string[]): void {
    run(join(this.#binDir, "initdb"), ["-D", this.dataDir, ...options], {
      cwd: this.#directory,
      ...commandUser(this.#user),
    });
  }

  async #launch(): Promise<void> {
    const settings = Object.entries({
      ...COMMON_SETTINGS,
      ...this.#settings,
      listen_addresses: "127.0.0.1",
      port: String(this.target.port),
      unix_socket_directories: "",
      logging_collector: "off",
      ...this.#settings,
    });
    this.#process = new Deno.Command(join(this.#binDir, "postgres"), {
      args: [
        "-D",
        this.dataDir,
        ...settings.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      cwd: this.#directory,
      stdin: "null",
      stdout: "null",
      stderr: "null",
      ...commandUser(this.#user),
    }).spawn();
    const deadline = performance.now() + READY_MS_MAX;
    for (;;) {
      try {
        (await this.connect()).close();
        return;
      } catch (thrown) {
        if (performance.now() > deadline) throw thrown;
        await new Promise((resolve) => setTimeout(resolve, READY_LOOK_MS));
      }
    }
  }

  /** A new session. */
  connect(): Promise<PgClient> {
    const { port, user, database } = this.target;
    return PgClient.connect({ hostname: "127.0.0.1", port }, { user, database });
  }

  /** Stops it in an orderly way and starts it again: its buffers are empty then. */
  async restart(): Promise<void> {
    await this.#stop("SIGINT");
    await this.#launch();
  }

  /** As restart, but `between` runs while it is stopped. */
  async restartAfter(between: () => void | Promise<void>): Promise<void> {
    await this.#stop("SIGINT");
    await between();
    await this.#launch();
  }

  /** Ends it at once, as a crash does: without a checkpoint. */
  async crash(): Promise<void> {
    await this.#stop("SIGQUIT");
  }

  async #stop(signal: Deno.Signal): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (process === undefined) return;
    try {
      process.kill(signal);
    } catch {
      // it has ended by itself
    }
    await process.status;
  }

  /** Stops it and removes its files. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop("SIGQUIT");
    await Deno.remove(this.#directory, { recursive: true });
  }
}
