/** Changing the settings of an endpoint that are the compute host's own. */
import { changedSettings } from "../../compute/client.ts";
import { NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { computeClient } from "./clients.ts";
import {
  endpointNotFound,
  type EndpointSettings,
  loadEndpointRecord,
  storeEndpointRecord,
} from "./endpoint_records.ts";
import type { Environment } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";

/**
 * Stores the changes with the endpoint's definition, and has the compute host follow them if the
 * endpoint runs. Throws BadRequest for a setting that is PostgreSQL's, unknown or malformed.
 */
export async function reconfigureEndpoint(
  env: Environment,
  name: string,
  changes: EndpointSettings,
): Promise<{ isRunning: boolean }> {
  await withDirectoryLock(env.repoDir, () => {
    const record = loadEndpointRecord(env.repoDir, name);
    if (record === undefined) throw endpointNotFound(env.repoDir, name);
    const settings = changedSettings(record.settings, changes);
    storeEndpointRecord(env.repoDir, { ...record, settings });
  });
  try {
    const { status } = await computeClient(env).configureEndpoint(name, changes);
    return { isRunning: status === "running" };
  } catch (thrown) {
    // It never ran, or what runs without a host goes on as it is until the next start
    if (thrown instanceof NotFound || thrown instanceof Unavailable) return { isRunning: false };
    throw thrown;
  }
}
