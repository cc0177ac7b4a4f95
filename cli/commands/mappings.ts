/** `neon mappings map`. */
import { Command } from "@commander-js/extra-typings";
import { openEnvironment, tenantOf } from "../control_plane/environment.ts";
import { mapTimeline } from "../control_plane/timelines.ts";
import { tenantId, timelineId } from "../options.ts";
import { printLine } from "../output.ts";

function map() {
  return new Command("map")
    .description("give a timeline that exists a branch name")
    .requiredOption("--branch-name <name>", "the name")
    .requiredOption("--timeline-id <id>", "the timeline", timelineId)
    .option("--tenant-id <id>", "which tenant (default: the default one)", tenantId)
    .action(async (options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      await mapTimeline(env, tenant, options.branchName, options.timelineId);
      printLine(`Branch ${options.branchName} is timeline ${options.timelineId} of ${tenant}`);
    });
}

/** The command. */
export function command(): Command {
  return new Command("mappings")
    .description("give a branch name to a timeline that exists")
    .addCommand(map() as unknown as Command) as unknown as Command;
}
