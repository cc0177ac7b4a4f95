/**
 * A second compute host on the same storage, as if on another machine: its own directory and ports,
 * told of the same tenants, knowing nothing of the first one's endpoints.
 */
import { join } from "node:path";
import { configOnFreePorts } from "../../cli/local_neon.ts";
import { loadConfig, storeConfig } from "../../cli/control_plane/config.ts";
import { startEndpoint } from "../../cli/control_plane/endpoints.ts";
import { openEnvironment } from "../../cli/control_plane/environment.ts";
import { startRole, stopRole } from "../../cli/control_plane/lifecycle.ts";
import { computeRole, type Role } from "../../cli/control_plane/roles.ts";
import { ComputeClient } from "../../compute/client.ts";
import type { TestNeon } from "../harness.ts";

/** See the head of the file. Ends with the object, its endpoints as well. */
export class SecondMachine implements AsyncDisposable {
  readonly directory: string;
  readonly compute: ComputeClient;
  readonly #neon: TestNeon;
  readonly #role: Role;

  private constructor(neon: TestNeon, directory: string) {
    this.#neon = neon;
    this.directory = directory;
    const env = openEnvironment(directory);
    this.#role = computeRole(env);
    this.compute = new ComputeClient(env.config.compute.listen_http_addr);
  }

  /** Starts the host. */
  static async start(neon: TestNeon): Promise<SecondMachine> {
    const { repoDir } = neon.local.environment();
    const directory = join(repoDir, "second_machine");
    Deno.mkdirSync(join(directory, "tenants"), { recursive: true });
    for (const { name } of Deno.readDirSync(join(repoDir, "tenants"))) {
      Deno.copyFileSync(join(repoDir, "tenants", name), join(directory, "tenants", name));
    }
    const { compute } = configOnFreePorts(1, 17);
    storeConfig(directory, { ...loadConfig(repoDir), compute });
    const machine = new SecondMachine(neon, directory);
    await startRole(machine.#role);
    return machine;
  }

  /** Starts an endpoint here; returns its port. */
  async startEndpoint(name: string): Promise<number> {
    const env = openEnvironment(this.directory);
    const { record } = await startEndpoint(env, this.#neon.tenant.tenantId, name);
    return record.pg_port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await stopRole(this.#role, "immediate");
  }
}
