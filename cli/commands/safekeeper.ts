/** `neon safekeeper start|stop|restart|status [ID]`. */
import type { Command } from "@commander-js/extra-typings";
import { startSafekeeper } from "../control_plane/lifecycle.ts";
import { safekeeperConfig } from "../control_plane/config.ts";
import { safekeeperRole } from "../control_plane/roles.ts";
import { roleCommand } from "../role_command.ts";

/** The command. */
export function command(): Command {
  return roleCommand({
    name: "safekeeper",
    description: "start, stop, restart or check one safekeeper",
    idAs: "argument",
    role: (env, id) => safekeeperRole(env, safekeeperConfig(env.config, id)),
    restartBy: "fast",
    start: (env, id, timeoutMs) =>
      startSafekeeper(env, safekeeperConfig(env.config, id), timeoutMs),
  });
}
