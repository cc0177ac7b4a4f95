/** `neon mappings map`. */
import { Command } from "../command.ts";
import { openEnvironment, tenantOf } from "../control_plane/environment.ts";
import { mapTimeline } from "../control_plane/timelines.ts";
import { withExamples } from "../help.ts";
import { tenantId, timelineId } from "../options.ts";
import { printLine } from "../output.ts";

const EXAMPLE =
  "neon mappings map --branch-name old --timeline-id de200bd42b49cc1814412c7e592dd6e9";

function map() {
  const made = new Command("map")
    .description("give a timeline that exists a branch name")
    .requiredOption("--branch-name <name>", "the name")
    .requiredOption("--timeline-id <timeline>", "the timeline", timelineId)
    .option("--tenant-id <tenant>", "which tenant (default: the default one)", tenantId)
    .action(async (options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      await mapTimeline(env, tenant, options.branchName, options.timelineId);
      printLine(`Branch ${options.branchName} is timeline ${options.timelineId} of ${tenant}`);
    });
  return withExamples(made, [EXAMPLE]);
}

/** The command. */
export function command(): Command {
  const made = new Command("mappings")
    .description("give a branch name to a timeline that exists")
    .addCommand(map() as unknown as Command);
  return withExamples(made as unknown as Command, [EXAMPLE]);
}
