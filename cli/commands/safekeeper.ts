/** `neon safekeeper start|stop|restart|status|list|replace|add|remove`. */
import { Command } from "../command.ts";
import { safekeeperConfig } from "../control_plane/config.ts";
import { openEnvironment } from "../control_plane/environment.ts";
import { startSafekeeper } from "../control_plane/lifecycle.ts";
import { safekeeperRole } from "../control_plane/roles.ts";
import {
  joinSafekeeper,
  type ListedSafekeeper,
  listSafekeepers,
  removeSafekeeper,
  replaceSafekeeper,
  type SafekeeperReport,
} from "../control_plane/safekeepers.ts";
import type { Environment } from "../control_plane/environment.ts";
import { withExamples } from "../help.ts";
import { count } from "../options.ts";
import { printHint, printJson, printLine, printTable } from "../output.ts";
import { lifecyclePrinter, roleCommand } from "../role_command.ts";

/** Prints what happens while safekeepers change. */
function printer(env: Environment): SafekeeperReport {
  return {
    ...lifecyclePrinter(env),
    moving: ({ number, count, branch, timeline, from, to }) =>
      printLine(
        `[${number}/${count}] ${branch ?? "timeline"} ${timeline}: safekeepers ` +
          `${from.join(", ")} -> ${to.join(", ")}`,
      ),
  };
}

function replace() {
  const made = new Command("replace")
    .description("give all its timelines to a new safekeeper, and remove it; writers go on")
    .argument("<id>", "which one, whether it runs or is lost", count(1))
    .option("--with <id>", "take this one instead of making a new one", count(1))
    .addHelpText(
      "after",
      "\nA majority of the safekeepers of each timeline has to answer. When the\n" +
        "command is interrupted, the same command again goes on.",
    )
    .action(async (id, options) => {
      const env = openEnvironment();
      const { id: by, already } = await replaceSafekeeper(env, id, options.with, printer(env));
      if (already) printHint(`safekeeper ${id} was replaced by safekeeper ${by} before`);
      else printLine(`Safekeeper ${id} is replaced by safekeeper ${by}`);
    });
  return withExamples(made, ["neon safekeeper replace 1", "also if the disk of 1 is lost"]);
}

function add() {
  const made = new Command("add")
    .description("make one more safekeeper, which all timelines get; writers go on")
    .action(async () => {
      const env = openEnvironment();
      const id = await joinSafekeeper(env, printer(env));
      printLine(`Safekeeper ${id} has all timelines`);
    });
  return withExamples(made, ["neon safekeeper add", "from 1 safekeeper to 2, or from 3 to 4"]);
}

function remove() {
  const made = new Command("remove")
    .description("take all timelines off a safekeeper, and remove it; writers go on")
    .argument("<id>", "which one", count(1))
    .action(async (id) => {
      const env = openEnvironment();
      await removeSafekeeper(env, id, printer(env));
      printLine(`Safekeeper ${id} is removed`);
    });
  return withExamples(made, ["neon safekeeper remove 4"]);
}

function describeChange({ status, change }: ListedSafekeeper): string {
  if (change === null) return status;
  const what = typeof change === "string" ? change : `being replaced by ${change.replaced_by}`;
  return `${status}, ${what}`;
}

function list() {
  const made = new Command("list")
    .description("list the safekeepers")
    .option("--json", "print JSON")
    .action(async (options) => {
      const listed = await listSafekeepers(openEnvironment());
      if (options.json) return printJson(listed);
      const rows = listed.map((safekeeper) => [
        String(safekeeper.id),
        safekeeper.address,
        safekeeper.http_address,
        String(safekeeper.pid ?? "---"),
        String(safekeeper.timelines),
        describeChange(safekeeper),
      ]);
      printTable(["ID", "WAL", "HTTP", "PID", "TIMELINES", "STATUS"], rows);
    });
  return withExamples(made, ["neon safekeeper list"], ["neon safekeeper list --json"]);
}

/** The command. */
export function command(): Command {
  const made = roleCommand({
    name: "safekeeper",
    description: "start, stop, list, replace, add and remove safekeepers",
    idAs: "argument",
    role: (env, id) => safekeeperRole(env, safekeeperConfig(env.config, id)),
    restartBy: "fast",
    start: (env, id, timeoutMs) =>
      startSafekeeper(env, safekeeperConfig(env.config, id), timeoutMs),
  });
  for (const sub of [list(), replace(), add(), remove()]) {
    made.addCommand(sub as unknown as Command);
  }
  return made;
}
