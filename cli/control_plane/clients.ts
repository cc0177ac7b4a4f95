/** Clients of the daemons of a local Neon, at the addresses that its configuration has. */
import { ComputeClient } from "../../compute/client.ts";
import { PageserverClient } from "../../pageserver/client.ts";
import { SafekeeperClient } from "../../safekeeper/client.ts";
import { LOOPBACK, type SafekeeperConfig } from "./config.ts";
import type { Environment } from "./environment.ts";

/** The pageserver. */
export function pageserverClient(env: Environment): PageserverClient {
  return new PageserverClient(env.config.pageservers[0]!.listen_http_addr);
}

/** The compute host. */
export function computeClient(env: Environment): ComputeClient {
  return new ComputeClient(env.config.compute.listen_http_addr);
}

/** One safekeeper. */
export function safekeeperClient(config: SafekeeperConfig): SafekeeperClient {
  return new SafekeeperClient(`${LOOPBACK}:${config.http_port}`);
}
