/** `neon stop`: stops everything, endpoints first. */
import { Command } from "@commander-js/extra-typings";
import { openEnvironment } from "../control_plane/environment.ts";
import { stopAll } from "../control_plane/lifecycle.ts";
import { stopMode } from "../options.ts";
import { lifecyclePrinter } from "../role_command.ts";

/** The command. */
export function command(): Command {
  return new Command("stop")
    .description("stop everything, endpoints first")
    .option("-m, --mode <mode>", "fast or immediate", stopMode, "fast" as const)
    .action(async (options) => {
      const env = openEnvironment();
      await stopAll(env, options.mode, lifecyclePrinter(env));
    }) as unknown as Command;
}
