/**
 * `deno task quickstart`: from a clean checkout to a running PostgreSQL in one command. Everything
 * that is there already is used, so it may be run again at any time.
 */
import { parseArgs } from "node:util";
import { openEnvironment } from "./control_plane/environment.ts";
import { connectionString, startEndpoint } from "./control_plane/endpoints.ts";
import { DEFAULT_PG_VERSION, initEnvironment } from "./control_plane/init.ts";
import { MAIN_BRANCH } from "./control_plane/config.ts";
import { startAll } from "./control_plane/lifecycle.ts";
import { repoDirectory } from "./control_plane/repo_dir.ts";
import { createTenant } from "./control_plane/tenants.ts";
import { messageOf, NotFound } from "../libs/utils/errors.ts";
import { errorText } from "./error_text.ts";
import { printError, printLine } from "./output.ts";
import { terminalProgress, waitingFor } from "./waiting.ts";
import { lifecyclePrinter } from "./role_command.ts";
import { runCommands } from "./sql_client.ts";

const HELP = `Usage: deno task quickstart [--port-base PORT]

Makes a local Neon in .neon, or uses the one that is there, starts it, and runs a query.

  --port-base PORT   a new one uses this port and those after it (see neon init --help)
  --help             show this`;

const progress = terminalProgress();

/** The port that a new local Neon begins at, if it was named. Ends the program for wrong usage. */
function portBaseOf(args: string[]): number | undefined {
  const fail = (why: string): never => {
    printError(`${why} (deno task quickstart --help shows how)`);
    Deno.exit(2);
  };
  try {
    const { values } = parseArgs({
      args,
      options: { "port-base": { type: "string" }, help: { type: "boolean", short: "h" } },
    });
    if (values.help) {
      printLine(HELP);
      Deno.exit(0);
    }
    const named = values["port-base"];
    if (named === undefined) return undefined;
    return /^[0-9]{1,5}$/.test(named) ? Number(named) : fail(`"${named}" is no port`);
  } catch (thrown) {
    return fail(messageOf(thrown).split(". ")[0]!);
  }
}

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

async function main(): Promise<void> {
  await environment(portBaseOf(Deno.args));
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
  if (!await runCommands(target, ["select version()"])) throw new Error("Cannot run a query");
  printLine(`PostgreSQL is ready: ${connectionString(record.pg_port)}

What to try next (bin/neon is the command; the README shows how to have it as "neon"):
  bin/neon sql -c 'create table t(key int primary key, value text)'
  bin/neon timeline branch --branch-name experiment     # a branch of everything, at once
  bin/neon endpoint start experiment                    # PostgreSQL on that branch
  bin/neon sql experiment                               # changes here do not touch main
  bin/neon status                                       # daemons, branches, endpoints
  bin/neon logs -f                                      # what all of them log
  bin/neon stop                                         # quickstart again brings it all back`);
}

try {
  await main();
} catch (thrown) {
  printError(errorText(thrown, []));
  Deno.exit(1);
}
Deno.exit(0);
