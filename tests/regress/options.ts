/** The command line of the regression run. */
import { Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { count, repeated } from "../../cli/options.ts";
import type { SuiteName } from "./types.ts";

const SUITES: readonly SuiteName[] = ["regress", "isolation", "contrib"];

/** What was asked for. */
export interface RegressOptions {
  /** A PostgreSQL source tree in which src/test has been built. */
  readonly source: string;
  /** Where that tree was installed. */
  readonly prefix: string;
  /** Directory of the server's programs, or "npm"; those of `prefix` if undefined. */
  readonly server: string | undefined;
  readonly suites: readonly SuiteName[];
  /** Tests of the suite instead of its schedule. */
  readonly tests: readonly string[] | undefined;
  /** Tests of the schedule that are not run. */
  readonly skip: readonly string[];
  /** Settings of the endpoint, name=value. */
  readonly config: readonly string[];
  /** Settings of the tenant, key:value. */
  readonly tenantConfig: readonly string[];
  /** As the version's initdb has it, unless turned off. */
  readonly dataChecksums: boolean;
  /** How often the suites run; the endpoint is started anew in between. */
  readonly rounds: number;
  /** Kill daemons of the storage meanwhile. */
  readonly disturb: boolean;
  /** Where the directory of the run is made. */
  readonly workDir: string | undefined;
  readonly keep: boolean;
  /** A file for the figures. */
  readonly json: string | undefined;
}

function suites(text: string): SuiteName[] {
  const names = text.split(",");
  const unknown = names.find((name) => !(SUITES as readonly string[]).includes(name));
  if (unknown === undefined) return names as SuiteName[];
  throw new InvalidArgumentError(`expected ${SUITES.join(" or ")}, with a comma between them`);
}

/** Reads the command line; ends the process after --help or a mistake. */
export function parseOptions(args: readonly string[]): RegressOptions {
  const command = new Command("deno task test:regress")
    .description(
      "Runs PostgreSQL's own test suites against an endpoint of a fresh local Neon, then proves " +
        "that the storage has everything: every page, a dump of every database, amcheck.",
    )
    .requiredOption("--source <dir>", "a PostgreSQL source tree that has been built, with src/test")
    .requiredOption("--prefix <dir>", "where it is installed (psql, pg_dump, pg_amcheck)")
    .option("--server <dir>", 'the server\'s programs: DIR, or "npm" (default: those of --prefix)')
    .option("--suites <list>", "of regress, isolation, contrib", suites, ["regress"] as SuiteName[])
    .option(
      "--tests <list>",
      "only these tests (of contrib: modules), in this order",
      (text) => text.split(","),
    )
    .option("--skip <list>", "leave out these tests of the schedule", (text) => text.split(","))
    .option("-c, --config <name=value>", "a setting of the endpoint; may be repeated", repeated)
    .option("--tenant-config <key:value>", "a setting of the tenant; may be repeated", repeated)
    .option("--no-data-checksums", "a cluster without, also from 18 on")
    .option("--rounds <n>", "run that often; in between the endpoint starts anew", count(1), 1)
    .option("--disturb", "kill pageserver and safekeepers while tests run", false)
    .option("--work-dir <dir>", "where to make the run's directory (default: $TMPDIR or /tmp)")
    .option("--keep", "keep output, results and the local Neon", false)
    .option("--json <file>", "write outcomes and figures to a file");
  const given = command.parse(args, { from: "user" }).opts();
  if (given.tests !== undefined && given.suites.length > 1) {
    command.error("error: --tests needs a single suite in --suites");
  }
  const { server, tests, workDir, json, skip = [], config = [], tenantConfig = [] } = given;
  return { ...given, server, tests, workDir, json, skip, config, tenantConfig };
}
