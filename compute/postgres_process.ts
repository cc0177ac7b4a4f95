/**
 * Postgres as a process: started, signalled and looked at through the launcher, the only program
 * that the host may run. A process is known by its pid and its start time, so that a number that
 * was given to somebody else in the meantime is never signalled.
 *
 * A Postgres that this host started tells its end at once (it is our child); one that was adopted
 * from an earlier host is looked at every ADOPTED_LOOK_MS.
 */
import { BadRequest, Conflict, NotFound, TimedOut, Unavailable } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import type { FileOwner } from "./endpoint_directory.ts";

/** How long after a start the next one is got ready for: whoever was started comes first. */
const SPARE_AFTER_MS = 250;
/** Pause between two looks at an adopted process. */
const ADOPTED_LOOK_MS = 250;
/** Pause between two looks at postmaster.pid while Postgres starts. */
const READY_LOOK_MS = 1;
/** Line of postmaster.pid that says whether connections are accepted (pidfile.h). */
const STATUS_LINE = 7;
/** What Postgres says when it cannot listen (StreamServerPort, libpq/pqcomm.c). */
const PORT_TAKEN = /Is another postmaster already running on port (\d+)\?/;

/** How long Postgres may live without a host, and how often the guard looks. */
const GUARD_LIMIT_SECONDS = 60;
const GUARD_LOOK_SECONDS = 3;

/** How a Postgres ends that was told to. */
export const CLEAN_EXIT = "exit code 0";

/** PostgreSQL's fast and immediate shutdown, reload, and the last resort. */
type PostgresSignal = "INT" | "QUIT" | "HUP" | "KILL";

/** A running process, for the state file. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks from boot. */
  readonly startTime: string;
}

/** What to start. */
interface LaunchOptions {
  readonly pgdata: string;
  readonly logFile: string;
  /** Undefined: all files are whole, and the library is not preloaded. */
  readonly arena: string | undefined;
  readonly binDir: string;
  readonly owner: FileOwner | undefined;
}

/** Settings for Postgres's command line. */
export type Settings = readonly (readonly [name: string, value: string])[];

/** The launcher and the library that it preloads, where that can be done. */
export class Launcher {
  readonly #path: string;
  readonly #library: string | undefined;
  /** A launcher that waits for what to start. */
  #spare: Deno.ChildProcess | undefined;

  constructor(path: string, library: string | undefined) {
    this.#path = path;
    this.#library = library;
  }

  /** The id of this boot of the machine. */
  async bootId(): Promise<string> {
    return (await this.#run(["boot-id"])).text;
  }

  /**
   * Has Postgres stopped when this host, which holds the lock on `pidFile`, is gone for too long:
   * without it nothing can commit, but reads go on, perhaps of a timeline that others write by
   * then. Returns what calls that off when the host ends in an orderly way.
   */
  guard(pidFile: string, endpointsDirectory: string): () => void {
    const times = [String(GUARD_LOOK_SECONDS), String(GUARD_LIMIT_SECONDS)];
    const child = this.#detach(["guard", pidFile, endpointsDirectory, ...times]);
    return () => {
      try {
        child.kill("SIGTERM");
      } catch {
        // it was not needed: that of an earlier host still watches, and leaves by itself
      }
    };
  }

  /** Runs the launcher in a session of its own: it outlives us. */
  #detach(args: string[], stdin: "null" | "piped" = "null"): Deno.ChildProcess {
    try {
      const child = new Deno.Command(this.#path, {
        args,
        clearEnv: true,
        stdin,
        stdout: "null",
        stderr: "null",
        detached: true,
      }).spawn();
      child.unref();
      return child;
    } catch (thrown) {
      throw this.#cannotRun(thrown);
    }
  }

  /**
   * Has everything done for a start but the last step, which is Postgres itself; by the spare
   * process, if there is one.
   */
  prepare(options: LaunchOptions): PreparedPostgres {
    const { pgdata, logFile, arena, binDir, owner } = options;
    const files = [pgdata, logFile, arena ?? "-", binDir];
    const ids = idsOf(owner);
    const spare = this.#takeSpare();
    const lines = [this.#library ?? "-", ...files, ...ids];
    if (spare !== undefined && lines.every((line) => !line.includes("\n"))) {
      return new PreparedPostgres(this, spare, lines);
    }
    const library = this.#library === undefined ? [] : ["--library", this.#library];
    const args = ["start", "--wait", ...library, ...files, ...ids, "--"];
    return new PreparedPostgres(this, this.#detach(args, "piped"), []);
  }

  /**
   * Gets a process ready for the next start, unless there is one: to make it takes this host
   * several milliseconds, in which it does nothing else. Once taken there will be another one. It
   * ends when we do.
   */
  makeSpare(): void {
    if (this.#spare !== undefined) return;
    try {
      const child = this.#detach(["spare"], "piped");
      this.#spare = child;
      child.status.then(() => {
        if (this.#spare === child) this.#spare = undefined;
      });
    } catch {
      // the start that needs it says why
    }
  }

  #takeSpare(): Deno.ChildProcess | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare !== undefined) Deno.unrefTimer(setTimeout(() => this.makeSpare(), SPARE_AFTER_MS));
    return spare;
  }

  /**
   * Gives back the shared memory of a Postgres that was killed in `pgdata`, whose files are as they
   * were. False if that cannot be, as while one of its processes lives.
   */
  async release(pgdata: string, binDir: string, owner: FileOwner | undefined): Promise<boolean> {
    return (await this.#run(["release", pgdata, binDir, ...idsOf(owner)])).code === 0;
  }

  /** Takes over a process that an earlier host started; undefined if it is gone. */
  async adopt(identity: ProcessIdentity): Promise<PostgresProcess | undefined> {
    if (await this.startTime(identity.pid) !== identity.startTime) return undefined;
    const ended = async () => {
      do await new Promise((resolve) => setTimeout(resolve, ADOPTED_LOOK_MS)); while (
        await this.#mayLive(identity)
      );
      return "an unknown exit code";
    };
    return new PostgresProcess(this, identity.pid, ended(), identity.startTime);
  }

  /** False if a process has ended; a look that fails, as where no process can be made, says nothing. */
  async #mayLive({ pid, startTime }: ProcessIdentity): Promise<boolean> {
    try {
      return await this.startTime(pid) === startTime;
    } catch {
      return true;
    }
  }

  /** When the Postgres with this pid started; undefined if there is none. */
  async startTime(pid: number): Promise<string | undefined> {
    const [state, startTime, kind] = (await this.#run(["probe", String(pid)])).text.split(" ");
    return state === "alive" && kind === "postgres" ? startTime : undefined;
  }

  /** False if the process is gone. */
  async signal(name: PostgresSignal, identity: ProcessIdentity): Promise<boolean> {
    const { code } = await this.#run(["signal", name, String(identity.pid), identity.startTime]);
    return code === 0;
  }

  #cannotRun(thrown: unknown): unknown {
    if (!(thrown instanceof Deno.errors.PermissionDenied)) return thrown;
    return new Unavailable(
      `Cannot run "${this.#path}": permission denied; is its file system mounted noexec? Then ` +
        `set NEON_CACHE_DIR to a directory on another one, and run "neon start" again`,
    );
  }

  async #run(args: string[]): Promise<{ code: number; text: string }> {
    const { code, stdout, stderr } = await new Deno.Command(this.#path, {
      args,
      clearEnv: true,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output().catch((thrown) => {
      throw this.#cannotRun(thrown);
    });
    if (code >= 64) {
      const why = new TextDecoder().decode(stderr).trim();
      throw new Unavailable(`Cannot run "${this.#path} ${args[0]}": ${why}`);
    }
    return { code, text: new TextDecoder().decode(stdout).trim() };
  }
}

/** The user and the group to become, as the launcher reads them. */
function idsOf(owner: FileOwner | undefined): string[] {
  return owner === undefined ? ["-", "-"] : [String(owner.uid), String(owner.gid)];
}

/** A launcher that waits for the settings, to become Postgres. It ends when we do. */
export class PreparedPostgres {
  readonly #launcher: Launcher;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #exited: Promise<string>;
  #isStarted = false;

  /** `lines` come before the settings. */
  constructor(launcher: Launcher, child: Deno.ChildProcess, lines: readonly string[]) {
    this.#launcher = launcher;
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#exited = child.status.then(({ code, signal }) =>
      signal === null ? `exit code ${code}` : `signal ${signal}`
    );
    if (lines.length > 0) this.#tell([...lines, ""]);
  }

  #tell(lines: readonly string[]): void {
    this.#input.write(new TextEncoder().encode(lines.join("\n"))).catch(() => {}); // its end says why
  }

  /** Becomes Postgres with these settings. Throws BadRequest for one of several lines. */
  start(settings: Settings): PostgresProcess {
    const lines = settings.map(([name, value]) => `${name}=${value}`);
    const odd = lines.find((line) => line.includes("\n"));
    if (odd !== undefined) throw new BadRequest(`Cannot use a setting of several lines: ${odd}`);
    this.#isStarted = true;
    this.#tell([...lines, "", ""]);
    return new PostgresProcess(this.#launcher, this.#child.pid, this.#exited);
  }

  /** Ends it, unless it was started; returns when it is gone. */
  async cancel(): Promise<void> {
    await this.#input.close().catch(() => {});
    if (!this.#isStarted) await this.#exited;
  }
}

/** One Postgres. */
export class PostgresProcess {
  readonly pid: number;
  /** Resolves with how it ended. */
  readonly exited: Promise<string>;
  readonly #launcher: Launcher;
  #startTime: string | undefined;
  #hasExited = false;

  constructor(launcher: Launcher, pid: number, exited: Promise<string>, startTime?: string) {
    this.#launcher = launcher;
    this.pid = pid;
    this.#startTime = startTime;
    this.exited = exited.finally(() => this.#hasExited = true);
  }

  /** Pid and start time. Call it once Postgres runs: before, the pid is the launcher's shell. */
  async identity(): Promise<ProcessIdentity> {
    this.#startTime ??= await this.#launcher.startTime(this.pid);
    if (this.#startTime === undefined) {
      throw new NotFound(`Cannot find process ${this.pid}: Postgres has ended`);
    }
    return { pid: this.pid, startTime: this.#startTime };
  }

  /** Sends a signal if it still runs. */
  async signal(name: PostgresSignal): Promise<void> {
    if (this.#hasExited) return;
    try {
      await this.#launcher.signal(name, await this.identity());
    } catch (thrown) {
      if (!(thrown instanceof NotFound)) throw thrown;
    }
  }

  /** Resolves true when it has ended, false when the time is over. */
  async endsWithin(ms: number): Promise<boolean> {
    const limit = Promise.withResolvers<false>();
    const timer = setTimeout(() => limit.resolve(false), ms);
    try {
      return await Promise.race([this.exited.then(() => true), limit.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Waits until postmaster.pid says that connections are accepted. Throws Conflict if its port is
   * taken, Unavailable with the end of the log if Postgres ends for another reason, TimedOut.
   */
  async ready(pgdata: string, logFile: string, logStart: number, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (readyLine(`${pgdata}/postmaster.pid`)?.startsWith("ready")) return;
      if (this.#hasExited) {
        const tail = tailOf(logFile, logStart);
        const [, taken] = PORT_TAKEN.exec(tail) ?? [];
        if (taken !== undefined) {
          throw new Conflict(`Cannot start Postgres: port ${taken} is in use by another process`);
        }
        throw new Unavailable(
          `Cannot start Postgres: it ended with ${await this.exited}; the end of "${logFile}" ` +
            `says:\n${tail}`,
        );
      }
      if (performance.now() > deadline) {
        throw new TimedOut(
          `Cannot start Postgres: it accepts no connections after ${timeoutMs / 1000} s; the end ` +
            `of "${logFile}" says:\n${tailOf(logFile, logStart)}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, READY_LOOK_MS));
    }
  }
}

function readyLine(path: string): string | undefined {
  return ifThere(() => Deno.readTextFileSync(path).split("\n")[STATUS_LINE]);
}

const TAIL_BYTES = 4096;
const TAIL_LINES = 12;

/** The last lines of a log file, from byte `from` on. */
function tailOf(path: string, from: number): string {
  const bytes = Deno.readFileSync(path);
  const text = new TextDecoder().decode(bytes.subarray(Math.max(from, bytes.length - TAIL_BYTES)));
  return text.trimEnd().split("\n").slice(-TAIL_LINES).join("\n");
}
