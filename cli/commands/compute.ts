/** `neon compute start|stop|restart|status`: the compute host, which owns all endpoints. */
import type { Command } from "../command.ts";
import { startRole } from "../control_plane/lifecycle.ts";
import { computeRole } from "../control_plane/roles.ts";
import { roleCommand } from "../role_command.ts";

/** The command. */
export function command(): Command {
  return roleCommand({
    name: "compute",
    description: "start, stop, restart or check the compute host, which runs the endpoints",
    idAs: "none",
    role: computeRole,
    // A stop would end the endpoints; a killed host leaves them for the next one to take over.
    restartBy: "kill",
    start: (env, _id, timeoutMs) => startRole(computeRole(env), timeoutMs),
  });
}
