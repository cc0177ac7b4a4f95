/**
 * What goes wrong, on real processes: a safekeeper is killed, hangs, or is cut off from the compute
 * host, one way or both; the compute host, its Postgres or both are killed. The compute host
 * reaches each safekeeper through a forwarder.
 */
import { startEndpoint } from "../../cli/control_plane/endpoints.ts";
import type { Environment } from "../../cli/control_plane/environment.ts";
import { startRole, startSafekeeper } from "../../cli/control_plane/lifecycle.ts";
import { computeRole } from "../../cli/control_plane/roles.ts";
import { daemonPid } from "../../cli/control_plane/supervisor.ts";
import type { TestNeon } from "../harness.ts";
import { until } from "../support/waiting.ts";
import { Forwarder } from "./forwarder.ts";

/** What can be wrong with a safekeeper. */
export const SAFEKEEPER_FAULTS = [
  "killed",
  "hung",
  "cut off",
  "deaf",
  "mute",
  "refused",
] as const;
export type SafekeeperFault = typeof SAFEKEEPER_FAULTS[number];

/** What can be killed of the compute. */
export const COMPUTE_CRASHES = ["postgres", "compute host", "both"] as const;
export type ComputeCrash = typeof COMPUTE_CRASHES[number];

const ENDPOINT = "main";

/** The process, or one of its threads, as /proc/PID/stat shows it: T is stopped. */
function isStopped(pid: number): boolean {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].every(({ name }) => {
    const stat = Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`);
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
  });
}

/** See the head of the file. */
export class Nemesis implements AsyncDisposable {
  /** How often each thing went wrong. */
  readonly counts: Map<string, number> = new Map();
  readonly #neon: TestNeon;
  readonly #forwarders: Map<number, Forwarder> = new Map();
  /** The local Neon as the compute host sees it: with the forwarders' ports. */
  readonly #routed: Environment;
  /** What is wrong with which safekeeper. */
  readonly #wrong: Map<number, SafekeeperFault> = new Map();

  private constructor(neon: TestNeon) {
    this.#neon = neon;
    const env = neon.local.environment();
    const safekeepers = env.config.safekeepers.map((config) => {
      const forwarder = new Forwarder(config.pg_port);
      this.#forwarders.set(config.id, forwarder);
      return { ...config, pg_port: forwarder.port };
    });
    this.#routed = { ...env, config: { ...env.config, safekeepers } };
  }

  /** Starts the compute host anew, behind forwarders. */
  static async start(neon: TestNeon): Promise<Nemesis> {
    const nemesis = new Nemesis(neon);
    await neon.killRole("compute");
    await startRole(computeRole(nemesis.#routed));
    return nemesis;
  }

  /** Starts the endpoint, and the compute host if it is down; returns the endpoint's port. */
  async startCompute(): Promise<number> {
    await startRole(computeRole(this.#routed));
    const { record } = await startEndpoint(this.#routed, this.#neon.tenant.tenantId, ENDPOINT);
    return record.pg_port;
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** kill -9; `startCompute` brings back what is gone. */
  async crashCompute(what: ComputeCrash): Promise<void> {
    this.#count(`${what} killed`);
    const { directory } = this.#neon.local;
    const pidFile = `${directory}/compute/endpoints/${ENDPOINT}/pgdata/postmaster.pid`;
    if (what !== "postgres") await this.#neon.killRole("compute");
    if (what === "compute host") return;
    const pid = Number(Deno.readTextFileSync(pidFile).split("\n")[0]);
    Deno.kill(pid, "SIGKILL");
  }

  /** Something goes wrong with a safekeeper; when this returns it acknowledges nothing new. */
  async afflict(id: number, fault: SafekeeperFault): Promise<void> {
    this.#count(`safekeeper ${fault}`);
    this.#wrong.set(id, fault);
    const forwarder = this.#forwarders.get(id)!;
    switch (fault) {
      case "killed":
        await this.#neon.killRole(`safekeeper ${id}`);
        break;
      case "hung": {
        const pid = this.#pid(id);
        Deno.kill(pid, "SIGSTOP");
        await until(`safekeeper ${id} is stopped`, () => isStopped(pid));
        break;
      }
      case "cut off":
        forwarder.cut(["to the safekeeper", "to the compute"]);
        break;
      case "deaf":
        forwarder.cut(["to the safekeeper"]);
        break;
      case "mute":
        forwarder.cut(["to the compute"]);
        break;
      case "refused":
        forwarder.refuse();
        break;
    }
  }

  #pid(id: number): number {
    const pid = daemonPid(this.#neon.role(`safekeeper ${id}`));
    if (pid === undefined) throw new Error(`Cannot find the process of safekeeper ${id}`);
    return pid;
  }

  /** A safekeeper is as it should be again. */
  async mend(id: number): Promise<void> {
    const fault = this.#wrong.get(id);
    this.#wrong.delete(id);
    if (fault === "killed") {
      const env = this.#neon.local.environment();
      await startSafekeeper(env, env.config.safekeepers.find((config) => config.id === id)!);
    } else if (fault === "hung") Deno.kill(this.#pid(id), "SIGCONT");
    else this.#forwarders.get(id)!.mend();
  }

  /** Everything is as it should be again. */
  async mendAll(): Promise<void> {
    for (const id of [...this.#wrong.keys()]) await this.mend(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mendAll();
    for (const forwarder of this.#forwarders.values()) await forwarder[Symbol.asyncDispose]();
  }
}
