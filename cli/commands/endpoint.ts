/** `neon endpoint create|start|stop|reconfigure|list|generate-jwt`. */
import { Command, Option } from "../command.ts";
import { MAIN_BRANCH } from "../control_plane/config.ts";
import { reconfigureEndpoint } from "../control_plane/endpoint_settings.ts";
import { stopEndpoint } from "../control_plane/endpoint_stop.ts";
import { endpointMode, formatMode } from "../control_plane/endpoint_modes.ts";
import {
  endpointNotFound,
  loadEndpointRecord,
  parseEndpointSettings,
} from "../control_plane/endpoint_records.ts";
import {
  connectionString,
  createEndpoint,
  describeStatus,
  describeTrouble,
  type EndpointOptions,
  listEndpoints,
  startEndpoint,
} from "../control_plane/endpoints.ts";
import {
  branchNames,
  type Environment,
  openEnvironment,
  tenantOf,
} from "../control_plane/environment.ts";
import { closest } from "../control_plane/suggest.ts";
import { GENERATED_SCOPES, generateToken } from "../control_plane/tokens.ts";
import { withExamples } from "../help.ts";
import { lsn, port, repeated, stopMode, tenantId, time, trueOrFalse } from "../options.ts";
import type { EndpointMode } from "../../compute/client.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import type { TenantId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { printBytes, printHint, printJson, printLine, printTable } from "../output.ts";
import { waitingFor } from "../waiting.ts";

const TENANT_HELP = "which tenant (default: the default one)";
const AS_OF_HELP = "the same with what was committed by then: RFC 3339, or such as '5 minutes ago'";

/** What the options of a new endpoint say. */
interface CreationOptions {
  branchName?: string;
  pgPort?: number;
  config?: string[];
  hotStandby?: boolean;
  lsn?: Lsn;
  timestamp?: Temporal.Instant;
  eager?: boolean;
}

function endpointOptions(options: CreationOptions): EndpointOptions {
  const { branchName, pgPort, config, hotStandby, lsn, timestamp, eager } = options;
  if (timestamp !== undefined && (lsn !== undefined || hotStandby === true)) {
    throw new BadRequest(
      "Cannot make an endpoint of a time that is also at an LSN or follows the branch: use one " +
        "of --timestamp, --lsn and --hot-standby",
    );
  }
  return {
    ...(timestamp === undefined ? {} : { asOf: timestamp }),
    ...(timestamp !== undefined || (hotStandby === undefined && lsn === undefined)
      ? {}
      : { mode: endpointMode(hotStandby === true, lsn) }),
    ...(branchName === undefined ? {} : { branch: branchName }),
    ...(pgPort === undefined ? {} : { pgPort }),
    ...(config === undefined ? {} : { settings: parseEndpointSettings(config) }),
    ...(eager === undefined ? {} : { eager }),
  };
}

/** Nothing for a primary, which is what is expected. */
function kindOf(mode: EndpointMode): string {
  return mode === "Primary" ? "" : `, ${formatMode(mode)}`;
}

function create() {
  const made = new Command("create")
    .description("define an endpoint without starting it")
    .argument("[name]", "its name (default: ep-<branch>)")
    .option("--branch-name <branch>", "the branch it serves", MAIN_BRANCH)
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--pg-port <port>", "its port (default: the next free one)", port)
    .option("--hot-standby <true|false>", "a read replica, which follows the branch", trueOrFalse)
    .option("--lsn <lsn>", "one that reads the branch as of this LSN, and stays there", lsn)
    .option("--timestamp <time>", AS_OF_HELP, time)
    .option("-c, --config <name=value>", "a setting of PostgreSQL; may be repeated", repeated)
    .option("--eager", "fetch all pages at each start, instead of each when it is first read")
    .action(async (name, options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      const endpoint = name ?? `ep-${options.branchName}`;
      const { mode } = await createEndpoint(env, tenant, endpoint, endpointOptions(options));
      if (options.timestamp === undefined || typeof mode === "string") return;
      printHint(`endpoint ${endpoint} stays at LSN ${mode.Static}`);
    });
  return withExamples(
    made,
    ["neon endpoint create main --config work_mem=64MB"],
    ["neon endpoint create reports --branch-name main --hot-standby true"],
    ["neon endpoint create before --timestamp '5 minutes ago'"],
  );
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/**
 * The branch that the name of a new endpoint was probably to be, if the name is almost one: without
 * a branch of its name, the endpoint is one of main.
 */
function mistypedBranch(env: Environment, tenant: TenantId, name: string): string | undefined {
  const branches = branchNames(env, tenant);
  if (branches.includes(name) || loadEndpointRecord(env.repoDir, name) !== undefined) return;
  const meant = closest(name, branches);
  return meant === MAIN_BRANCH ? undefined : meant;
}

function start() {
  const made = new Command("start")
    .description("start an endpoint, creating it when it does not exist; returns when it serves")
    .argument("<endpoint>", "its name")
    .option(
      "--branch-name <branch>",
      "the branch of a new endpoint (default: its own name, or main)",
    )
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--pg-port <port>", "the port of a new endpoint (default: the next free one)", port)
    .option(
      "--hot-standby <true|false>",
      "a new read replica, which follows the branch",
      trueOrFalse,
    )
    .option("--lsn <lsn>", "a new one that reads the branch as of this LSN, and stays there", lsn)
    .option("--timestamp <time>", AS_OF_HELP, time)
    .option(
      "-c, --config <name=value>",
      "a setting of PostgreSQL, of a new endpoint; may be repeated",
      repeated,
    )
    .option("--eager", "fetch all pages first, instead of each when it is first read")
    .option("--json", "print JSON")
    .action(async (name, options) => {
      const env = openEnvironment();
      const tenant = options.tenantId ?? env.config.default_tenant_id;
      const wanted = {
        ...endpointOptions(options),
        ...(options.tenantId === undefined ? {} : { tenant: options.tenantId }),
      };
      const meant = tenant === undefined || options.branchName !== undefined
        ? undefined
        : mistypedBranch(env, tenant, name);
      if (meant !== undefined) {
        printHint(`there is no branch "${name}": on ${MAIN_BRANCH} instead; or is it "${meant}"?`);
      }
      let waitsFor = `Waiting for PostgreSQL on ${name}`;
      const started = await waitingFor(
        () => waitsFor,
        startEndpoint(env, tenant, name, wanted, {
          starting: (record, isNew) => {
            if (options.json) return;
            printLine(
              `Starting ${isNew ? "new" : "existing"} endpoint ${name} (PostgreSQL ` +
                `v${record.pg_version}${
                  kindOf(record.mode)
                }) on timeline ${record.timeline_id} ...`,
            );
          },
          eager: (why) => printHint(`all pages are fetched first: ${why}`),
          fetched: ({ bytes, total_bytes }) => {
            waitsFor = `Fetching all pages: ${megabytes(bytes)} of ${megabytes(total_bytes)} MB`;
          },
        }),
      );
      const url = connectionString(started.record.pg_port);
      if (options.json) printJson({ ...started.status, connection_string: url });
      else if (started.already) printLine(`Endpoint ${name} is already running at '${url}'`);
      else printLine(`Starting postgres at '${url}'`);
    });
  return withExamples(
    made,
    ["neon endpoint start main"],
    ["neon endpoint start dev", "on the branch of that name, if there is one"],
    ["neon endpoint start reports --branch-name main --hot-standby true"],
    ["neon endpoint start before --branch-name main --lsn 0/16F9A00"],
    ["neon endpoint start main --eager", "with all pages in its files from the start"],
  );
}

function stop() {
  const made = new Command("stop")
    .description("stop an endpoint")
    .argument("<endpoint>", "its name")
    .option(
      "-m, --mode <fast|immediate>",
      "immediate leaves work to the next start",
      stopMode,
      "fast" as const,
    )
    .option("--destroy", "remove its definition and local files as well (no data is lost)")
    .action(async (name, options) => {
      await waitingFor(
        `Stopping ${name}`,
        stopEndpoint(openEnvironment(), name, options.mode, options.destroy === true),
      );
      printLine(`Endpoint ${name} ${options.destroy ? "removed" : "stopped"}`);
    });
  return withExamples(
    made,
    ["neon endpoint stop dev"],
    ["neon endpoint stop dev --destroy", "the branch stays"],
  );
}

function list() {
  const made = new Command("list")
    .description("list endpoints")
    .option("--tenant-id <tenant>", "only those of one tenant", tenantId)
    .option("--json", "print JSON")
    .action(async (options) => {
      const endpoints = await listEndpoints(openEnvironment(), options.tenantId);
      if (options.json) {
        printJson(endpoints);
        return;
      }
      // Neon's own table as long as there is nothing to tell apart
      const hasModes = endpoints.some(({ mode }) => mode !== "Primary");
      const rows = endpoints.map((endpoint) => [
        endpoint.endpoint,
        endpoint.address,
        endpoint.timeline_id,
        endpoint.branch_name ?? "?",
        endpoint.lsn ?? "---",
        describeStatus(endpoint),
        ...(hasModes ? [typeof endpoint.mode === "string" ? endpoint.mode : "Static"] : []),
      ]);
      const titles = ["ENDPOINT", "ADDRESS", "TIMELINE", "BRANCH NAME", "LSN", "STATUS"];
      printTable([...titles, ...(hasModes ? ["MODE"] : [])], rows);
      for (const endpoint of endpoints) {
        const trouble = describeTrouble(endpoint);
        if (trouble !== undefined) printHint(trouble);
      }
    });
  return withExamples(made, ["neon endpoint list"], ["neon endpoint list --json"]);
}

function reconfigure() {
  const made = new Command("reconfigure")
    .description("change settings that begin with neon., at once if the endpoint runs")
    .argument("<endpoint>", "its name")
    .requiredOption("-c, --config <name=value>", "a setting; may be repeated", repeated)
    .action(async (name, options) => {
      const changes = parseEndpointSettings(options.config);
      const { isRunning } = await reconfigureEndpoint(openEnvironment(), name, changes);
      printLine(`Endpoint ${name} ${isRunning ? "goes on with" : "will start with"} the settings`);
    });
  return withExamples(
    made,
    ["neon endpoint reconfigure main --config neon.max_replication_write_lag=2GB"],
  );
}

function generateJwt() {
  const made = new Command("generate-jwt")
    .description("print a token, without a newline (see docs/authentication.md)")
    .argument("<endpoint>", "what it is for, at the compute host")
    .addOption(
      new Option("-s, --scope <scope>", "instead one that opens more, or the endpoint's storage")
        .choices(GENERATED_SCOPES),
    )
    .action(async (name, { scope }) => {
      const env = openEnvironment();
      const record = loadEndpointRecord(env.repoDir, name);
      if (record === undefined) throw endpointNotFound(env.repoDir, name);
      printBytes(new TextEncoder().encode(await generateToken(env, record, scope)));
    });
  return withExamples(
    made,
    ["neon endpoint generate-jwt main", "to ask for the state of this endpoint, or stop it"],
    ["neon endpoint generate-jwt main -s pageserverapi", "for everything at the pageserver"],
  );
}

/** The command. */
export function command(): Command {
  const made = new Command("endpoint").description(
    "create, start, stop, reconfigure and list endpoints",
  );
  for (const sub of [create(), start(), stop(), reconfigure(), list(), generateJwt()]) {
    made.addCommand(sub as unknown as Command);
  }
  return withExamples(
    made as unknown as Command,
    ["neon endpoint start main"],
    ["neon endpoint list"],
    ["neon endpoint stop main"],
  );
}
