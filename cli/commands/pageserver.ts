/** `neon pageserver start|stop|restart|status`. */
import type { Command } from "../command.ts";
import { startPageserver } from "../control_plane/lifecycle.ts";
import { pageserverConfig } from "../control_plane/config.ts";
import { pageserverRole } from "../control_plane/roles.ts";
import { roleCommand } from "../role_command.ts";

/** The command. */
export function command(): Command {
  return roleCommand({
    name: "pageserver",
    description: "start, stop, restart or check the pageserver",
    idAs: "option",
    role: (env, id) => pageserverRole(env, pageserverConfig(env.config, id)),
    restartBy: "fast",
    start: (env, id, timeoutMs) =>
      startPageserver(env, pageserverConfig(env.config, id), timeoutMs),
  });
}
