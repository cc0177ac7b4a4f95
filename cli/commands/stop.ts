/** `neon stop`: stops everything, endpoints first. */
import { Command } from "../command.ts";
import { openEnvironment } from "../control_plane/environment.ts";
import { stopAll } from "../control_plane/lifecycle.ts";
import { withExamples } from "../help.ts";
import { stopMode } from "../options.ts";
import { lifecyclePrinter } from "../role_command.ts";
import { waitingFor } from "../waiting.ts";

/** The command. */
export function command(): Command {
  const made = new Command("stop")
    .description("stop everything, endpoints first")
    .option(
      "-m, --mode <fast|immediate>",
      "immediate leaves work to the next start",
      stopMode,
      "fast" as const,
    )
    .action(async (options) => {
      const env = openEnvironment();
      await waitingFor("Stopping", stopAll(env, options.mode, lifecyclePrinter(env)));
    });
  return withExamples(
    made as unknown as Command,
    ["neon stop"],
    ["neon stop --mode immediate", "at once; nothing that was committed is lost"],
  );
}
