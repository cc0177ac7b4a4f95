/** `neon init`: makes a new local Neon. */
import { Command, InvalidArgumentError, Option } from "../command.ts";
import { parse } from "smol-toml";
import type { Config } from "../control_plane/config.ts";
import { SAFEKEEPERS_MAX } from "../control_plane/config_shape.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { displayPath, repoPath } from "../control_plane/environment.ts";
import { DEFAULT_PG_VERSION, FORCE_MODES, initEnvironment } from "../control_plane/init.ts";
import { takenPorts } from "../control_plane/lifecycle.ts";
import { repoDirectory } from "../control_plane/repo_dir.ts";
import { withExamples } from "../help.ts";
import { count, port } from "../options.ts";
import { printHint, printLine } from "../output.ts";
import { terminalProgress, waitingFor } from "../waiting.ts";

function configFile(path: string): Partial<Config> {
  try {
    return parse(Deno.readTextFileSync(path)) as Partial<Config>;
  } catch (thrown) {
    throw new InvalidArgumentError(`Cannot read it: ${messageOf(thrown).split("\n")[0]}`);
  }
}

function inlineTable(text: string): unknown {
  try {
    return parse(`value = ${text}`)["value"];
  } catch {
    throw new InvalidArgumentError('expected a table such as {local_path = "/srv/neon"}');
  }
}

/** The command. */
export function command(): Command {
  const made = new Command("init")
    .description("make a new local Neon in .neon (or $NEON_REPO_DIR); starts nothing")
    .option(
      "--num-safekeepers <n>",
      "how many safekeepers hold each commit",
      count(1, SAFEKEEPERS_MAX),
      1,
    )
    .option(
      "--pg-version <major>",
      "PostgreSQL major version of new tenants",
      count(1),
      DEFAULT_PG_VERSION,
    )
    .option("--pg-distrib-dir <dir>", "use the PostgreSQL in DIR/v<major>/bin")
    .option("--pg-bin <dir>", "use the PostgreSQL whose programs are in DIR")
    .option("--data-checksums", "new tenants' pages carry checksums (default: on from 18)")
    .option("--no-data-checksums", "new tenants' pages carry no checksums")
    .option(
      "--config <file>",
      "settings that differ from the default, as in .neon/config",
      configFile,
    )
    .option(
      "--remote-storage <toml>",
      `where safekeepers put WAL: '{local_path = "/srv/neon"}', or ` +
        `'{bucket_name = "...", bucket_region = "...", endpoint = "http://..."}'`,
      inlineTable,
    )
    .option("--auth", "daemons want tokens (JWT) of each other and of whoever asks them")
    .option("--port-base <port>", "use this port and those after it for everything", port)
    .addOption(
      new Option("--force <mode>", "what to do when the directory is there")
        .choices(FORCE_MODES).default("must-not-exist" as const),
    )
    .action(async (options) => {
      const env = await waitingFor(
        "Preparing",
        initEnvironment(repoDirectory(), {
          safekeepers: options.numSafekeepers,
          pgVersion: options.pgVersion,
          pgDistribDir: options.pgDistribDir,
          pgBin: options.pgBin,
          force: options.force,
          ...(options.dataChecksums === undefined ? {} : { dataChecksums: options.dataChecksums }),
          ...(options.remoteStorage === undefined ? {} : { remoteStorage: options.remoteStorage }),
          ...(options.auth === undefined ? {} : { auth: options.auth }),
          ...(options.portBase === undefined ? {} : { portBase: options.portBase }),
          ...(options.config === undefined ? {} : { config: options.config }),
        }, terminalProgress()),
      );
      const directory = displayPath(env.repoDir);
      for (const pageserver of env.config.pageservers) {
        const { id, listen_pg_addr } = pageserver;
        printLine(`Initializing pageserver node ${id} at '${listen_pg_addr}' in "${directory}"`);
      }
      if ((await takenPorts(env)).length > 0) {
        printHint(
          `some of its ports are in use now (another local Neon?): --port-base gives it others`,
        );
      }
      printHint(`next: neon start (settings are in ${displayPath(repoPath(env, "config"))})`);
    });
  return withExamples(
    made as unknown as Command,
    ["neon init", "a pageserver and one safekeeper, PostgreSQL 17"],
    ["neon init --num-safekeepers 3 --pg-version 18"],
    ["neon init --port-base 20000", "beside another local Neon on this machine"],
    ["neon init --auth", "daemons want tokens: docs/authentication.md"],
    ["neon init --force remove-all-contents", "begin anew"],
    [`neon init --remote-storage '{local_path = "/srv/neon"}'`],
  );
}
