/** `neon storage-broker start|stop|restart|status`. */
import type { Command } from "../command.ts";
import { startRole } from "../control_plane/lifecycle.ts";
import { brokerRole } from "../control_plane/roles.ts";
import { roleCommand } from "../role_command.ts";

/** The command. */
export function command(): Command {
  return roleCommand({
    name: "storage-broker",
    description: "start, stop, restart or check the storage broker",
    idAs: "none",
    role: brokerRole,
    restartBy: "fast",
    start: (env, _id, timeoutMs) => startRole(brokerRole(env), timeoutMs),
  });
}
