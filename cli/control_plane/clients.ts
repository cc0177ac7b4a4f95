/**
 * Clients of the daemons of a local Neon, at the addresses that its configuration has. Commands
 * wait for an answer as long as it takes; who must not gives a time limit.
 */
import { ComputeClient } from "../../compute/client.ts";
import { PageserverClient } from "../../pageserver/client.ts";
import { SafekeeperClient } from "../../safekeeper/client.ts";
import { LOOPBACK, type SafekeeperConfig } from "./config.ts";
import type { Environment } from "./environment.ts";
import { commandToken, WHOLE_ROLE } from "./tokens.ts";

/** The pageserver. */
export function pageserverClient(env: Environment, timeoutMs?: number): PageserverClient {
  const token = commandToken(env, WHOLE_ROLE.pageserver);
  return new PageserverClient(env.config.pageservers[0]!.listen_http_addr, token, timeoutMs);
}

/** The compute host. */
export function computeClient(env: Environment, timeoutMs?: number): ComputeClient {
  const token = commandToken(env, WHOLE_ROLE.compute);
  return new ComputeClient(env.config.compute.listen_http_addr, token, timeoutMs);
}

/** One safekeeper. */
export function safekeeperClient(
  env: Environment,
  config: SafekeeperConfig,
  timeoutMs?: number,
): SafekeeperClient {
  const token = commandToken(env, WHOLE_ROLE.safekeeper);
  return new SafekeeperClient(`${LOOPBACK}:${config.http_port}`, token, timeoutMs);
}
