/**
 * `neon status`: what there is and how it does. Exit code 0 if all daemons run and take our tokens,
 * 1 otherwise.
 */
import { styleText } from "node:util";
import { Command } from "../command.ts";
import { displayPath, openEnvironment } from "../control_plane/environment.ts";
import { neonStatus } from "../control_plane/status.ts";
import { errorText, printError } from "../error_text.ts";
import { withExamples } from "../help.ts";
import { outputWidth, printHint, printJson, printLine } from "../output.ts";
import { BRANCHES_MAX, statusLines } from "../status_text.ts";

/** What should not be, at the end of a line. */
const TROUBLE = /(?<= )(no answer|crashed|running, commits wait.*)$/;

/** The command. */
export function command(): Command {
  const made = new Command("status")
    .description("show daemons, branches and endpoints: what runs, how far its WAL is, its size")
    .option("--json", "print JSON, with everything that is known")
    .action(async (options) => {
      const env = openEnvironment();
      const status = await neonStatus(env, options.json ? Infinity : BRANCHES_MAX);
      if (options.json) printJson(status);
      else {
        const shown = { ...status, repo_dir: displayPath(env.repoDir) };
        const colour = Deno.stdout.isTerminal() && !Deno.noColor;
        for (const line of statusLines(shown, outputWidth())) {
          printLine(colour ? line.replace(TROUBLE, (words) => styleText("red", words)) : line);
        }
      }
      const allRun = status.daemons.every((daemon) => daemon.status === "running");
      if (status.refused !== null) printError(errorText(status.refused, []));
      if (allRun && status.refused === null) return;
      if (!options.json && !allRun) {
        printHint(`not everything of ${displayPath(env.repoDir)} is running: neon start`);
      }
      Deno.exitCode = 1;
    });
  return withExamples(
    made as unknown as Command,
    ["neon status", "exit code 1 unless all daemons run and answer"],
    ["neon status --json"],
  );
}
