/** `neon start`: starts what is down and leaves the rest alone. */
import { Command } from "../command.ts";
import { openEnvironment } from "../control_plane/environment.ts";
import { startAll } from "../control_plane/lifecycle.ts";
import { START_TIMEOUT_MS } from "../control_plane/supervisor.ts";
import { withExamples } from "../help.ts";
import { duration } from "../options.ts";
import { lifecyclePrinter } from "../role_command.ts";
import { waitingFor } from "../waiting.ts";

/** The command. */
export function command(): Command {
  const made = new Command("start")
    .description("start the broker, pageserver, safekeepers and compute host; endpoints stay down")
    .option("--start-timeout <time>", "how long each may take", duration, START_TIMEOUT_MS)
    .action(async (options) => {
      const env = openEnvironment();
      await waitingFor(
        "Waiting for the daemons",
        startAll(env, lifecyclePrinter(env), options.startTimeout),
      );
    });
  return withExamples(
    made as unknown as Command,
    ["neon start", "again at any time: what runs stays as it is"],
    ["neon start --start-timeout 2m", "on a slow machine"],
  );
}
