/**
 * A whole local Neon for one test: real processes in a temporary directory on free ports, reached
 * through the same functions as the commands, or through the command itself. Whatever happens in
 * the test, everything is stopped and removed at its end; when it fails, the ends of all logs are
 * shown.
 *
 *     testWithNeon("rows survive a restart", { safekeepers: 3 }, async (neon) => {
 *       const main = await neon.local.startEndpoint("main");
 *       const sql = neon.connect(main);
 *       ...
 *     });
 */
import postgres from "postgres";
import { allRoles } from "../cli/control_plane/lifecycle.ts";
import type { Role } from "../cli/control_plane/roles.ts";
import { daemonPid, programFile } from "../cli/control_plane/supervisor.ts";
import type { CreatedTenant } from "../mod.ts";
import {
  type LocalNeon,
  type LocalNeonOptions,
  type RunningEndpoint,
  startLocalNeon,
} from "../mod.ts";
import { until } from "./support/waiting.ts";

/** Lines of each log that a failed test shows. */
const LOG_LINES = 40;

/** What a run of the command gave. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** A PostgreSQL client. */
export type Sql = ReturnType<typeof postgres>;

/** Runs the real `neon` command on a state directory. */
export async function runNeon(
  repoDir: string,
  args: string[],
  cwd = Deno.cwd(),
): Promise<CommandResult> {
  const { code, stdout, stderr } = await new Deno.Command(programFile("bin/neon"), {
    args,
    cwd,
    env: { NEON_REPO_DIR: repoDir, NEON_DENO: Deno.execPath(), NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Opens a client of one connection; the caller ends it. */
export function openSql(port: number, database = "postgres"): Sql {
  return postgres({
    host: "127.0.0.1",
    port,
    user: "cloud_admin",
    database,
    max: 1,
    fetch_types: false,
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: 10,
    backoff: false,
    onnotice: () => {},
  });
}

/** The ends of all log files below a directory. */
export function logTails(directory: string): string {
  let text = "";
  const walk = (path: string) => {
    for (const entry of Deno.readDirSync(path)) {
      if (entry.isDirectory && entry.name !== "pgdata") walk(`${path}/${entry.name}`);
      else if (entry.name.endsWith(".log")) {
        const lines = Deno.readTextFileSync(`${path}/${entry.name}`).trimEnd().split("\n");
        text += `--- ${path}/${entry.name}\n${lines.slice(-LOG_LINES).join("\n")}\n`;
      }
    }
  };
  try {
    walk(directory);
  } catch (thrown) {
    text += `(logs could not be read: ${thrown})\n`;
  }
  return text;
}

/** A running local Neon with what tests do to it. */
export class TestNeon {
  readonly local: LocalNeon;
  readonly tenant: CreatedTenant;
  readonly #clients: Sql[] = [];

  /** Use testWithNeon(). */
  constructor(local: LocalNeon, tenant: CreatedTenant) {
    this.local = local;
    this.tenant = tenant;
  }

  /** Runs the `neon` command on this local Neon. Throws if it fails. */
  async run(...args: string[]): Promise<string> {
    const result = await runNeon(this.local.directory, args);
    if (result.code === 0) return result.stdout;
    throw new Error(`neon ${args.join(" ")} ended with ${result.code}: ${result.stderr}`);
  }

  /** Opens a client that ends with the test. */
  connect(endpoint: RunningEndpoint, database?: string): Sql {
    const client = openSql(endpoint.port, database);
    this.#clients.push(client);
    return client;
  }

  /** Ends all clients. */
  async closeClients(): Promise<void> {
    await Promise.all(this.#clients.splice(0).map((client) => client.end({ timeout: 0 })));
  }

  /** The daemon of a name such as "pageserver", "safekeeper 1", "storage_broker", "compute". */
  role(name: string): Role {
    const role = allRoles(this.local.environment()).find((known) => known.name === name);
    if (role === undefined) throw new Error(`Cannot find the role "${name}"`);
    return role;
  }

  /** Sends a signal to a daemon; returns its pid. */
  signalRole(name: string, signal: Deno.Signal): number {
    const pid = daemonPid(this.role(name));
    if (pid === undefined) throw new Error(`Cannot send ${signal} to ${name}: it does not run`);
    Deno.kill(pid, signal);
    return pid;
  }

  /** kill -9 of a daemon; returns when it is gone. */
  async killRole(name: string): Promise<void> {
    const role = this.role(name);
    const pid = this.signalRole(name, "SIGKILL");
    await until(`${name} is gone`, () => daemonPid(role) !== pid);
  }

  /** The pid of an endpoint's postmaster. */
  postmasterPid(endpoint: string): number {
    const directory = `${this.local.directory}/compute/endpoints/${endpoint}/pgdata`;
    return Number(Deno.readTextFileSync(`${directory}/postmaster.pid`).split("\n")[0]);
  }

  /** kill -9 of an endpoint's postmaster. */
  killPostgres(endpoint: string): void {
    Deno.kill(this.postmasterPid(endpoint), "SIGKILL");
  }
}

/**
 * Cleans up after a test process that was killed: a shell that waits for the end of this process,
 * then stops the daemons and removes the directory (of a state directory called .neon, the one
 * above). Ends with the object.
 */
export class Watchdog implements AsyncDisposable {
  readonly #shell: Deno.ChildProcess;

  constructor(repoDir: string) {
    const script = 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; ' +
      '"$2" stop -m immediate; rm -rf "${NEON_REPO_DIR%/.neon}"';
    this.#shell = new Deno.Command("/bin/sh", {
      args: ["-c", script, "sh", String(Deno.pid), programFile("bin/neon")],
      env: { NEON_REPO_DIR: repoDir, NEON_DENO: Deno.execPath() },
      cwd: "/",
      detached: true, // a terminal's interrupt ends the test, not this
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#shell.kill("SIGKILL");
    await this.#shell.status;
  }
}

/** Runs `body` on a local Neon of its own that has a default tenant. */
export async function withNeon(
  options: LocalNeonOptions,
  body: (neon: TestNeon) => Promise<void>,
): Promise<void> {
  await using local = await startLocalNeon(options);
  await using _watchdog = options.directory === undefined
    ? new Watchdog(local.directory)
    : undefined;
  const neon = new TestNeon(local, await local.createTenant({ setDefault: true }));
  try {
    await body(neon);
  } catch (thrown) {
    console.error(logTails(local.directory));
    throw thrown;
  } finally {
    await neon.closeClients();
  }
}

/** Registers a test on a local Neon of its own that has a default tenant. */
export function testWithNeon(
  name: string,
  options: LocalNeonOptions,
  body: (neon: TestNeon) => Promise<void>,
): void {
  Deno.test(name, () => withNeon(options, body));
}
