/**
 * `neon quickstart`: from a clean checkout to a running PostgreSQL in one command. Everything
 * that is there already is used, so it may be run again at any time.
 */
import { Command } from "../command.ts";
import { openEnvironment } from "../control_plane/environment.ts";
import { connectionString, startEndpoint } from "../control_plane/endpoints.ts";
import { DEFAULT_PG_VERSION, initEnvironment } from "../control_plane/init.ts";
import { MAIN_BRANCH } from "../control_plane/config.ts";
import { startAll } from "../control_plane/lifecycle.ts";
import { repoDirectory } from "../control_plane/repo_dir.ts";
import { createTenant } from "../control_plane/tenants.ts";
import { NotFound } from "../../libs/utils/errors.ts";
import { withExamples } from "../help.ts";
import { port } from "../options.ts";
import { printLine } from "../output.ts";
import { terminalProgress, waitingFor } from "../waiting.ts";
import { lifecyclePrinter } from "../role_command.ts";

const progress = terminalProgress();

/** The local Neon of this directory, made if there is none. */
async function environment(portBase: number | undefined) {
  try {
    return openEnvironment();
  } catch (thrown) {
    if (!(thrown instanceof NotFound)) throw thrown;
    const ports = portBase === undefined ? {} : { portBase };
    const options = { pgVersion: DEFAULT_PG_VERSION, ...ports };
    return await waitingFor("Preparing", initEnvironment(repoDirectory(), options, progress));
  }
}

async function quickstart(portBase: number | undefined): Promise<void> {
  await environment(portBase);
  await waitingFor(
    "Waiting for the daemons",
    startAll(openEnvironment(), lifecyclePrinter(openEnvironment())),
  );
  let tenant = openEnvironment().config.default_tenant_id;
  if (tenant === undefined) {
    const created = await waitingFor(
      "Creating the tenant",
      createTenant(openEnvironment(), { setDefault: true }, progress),
    );
    tenant = created.tenantId;
    printLine(`tenant ${tenant} created, with the branch ${MAIN_BRANCH}`);
  }
  const { record } = await waitingFor(
    "Waiting for PostgreSQL",
    startEndpoint(openEnvironment(), tenant, MAIN_BRANCH),
  );
  const target = {
    host: "127.0.0.1",
    port: record.pg_port,
    user: "cloud_admin",
    database: "postgres",
  };
  printLine("");
  const { runCommands } = await import("../sql_client.ts");
  if (!await runCommands(target, ["select version()"])) throw new Error("Cannot run a query");
  printLine(`PostgreSQL is ready: ${connectionString(record.pg_port)}

What to try next (bin/neon is the command; the README shows how to have it as "neon"):
  bin/neon sql -c 'create table t(key int primary key, value text)'
  bin/neon timeline branch --branch-name experiment     # a branch of everything, at once
  bin/neon endpoint start experiment                    # PostgreSQL on that branch
  bin/neon sql experiment                               # changes here do not touch main
  bin/neon status                                       # daemons, branches, endpoints
  bin/neon logs -f                                      # what all of them log
  bin/neon stop                                         # bin/neon quickstart brings it all back`);
}

/** The command. */
export function command(): Command {
  const made = new Command("quickstart")
    .description("make a local Neon, or use the one that is there, start it and run a query")
    .option("--port-base <port>", "a new one uses this port and those after it", port)
    .action((options) => quickstart(options.portBase));
  return withExamples(
    made as unknown as Command,
    ["neon quickstart", "again at any time: everything that is there is used"],
    ["neon quickstart --port-base 20000", "beside another local Neon"],
  );
}
