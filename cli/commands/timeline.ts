/** `neon timeline create|branch|list|compact`. */
import { Command, Option } from "../command.ts";
import { branchTimeline, MAIN_BRANCH } from "../control_plane/config.ts";
import { computeClient } from "../control_plane/clients.ts";
import { isEndpointName, loadEndpointRecord } from "../control_plane/endpoint_records.ts";
import { type Environment, openEnvironment, tenantOf } from "../control_plane/environment.ts";
import { compactTimeline, createBranch, listTimelines } from "../control_plane/timelines.ts";
import { withExamples } from "../help.ts";
import { count, lsn, tenantId, time, timelineId } from "../options.ts";
import { BadRequest, Conflict } from "../../libs/utils/errors.ts";
import type { TenantId } from "../../libs/utils/id.ts";
import { printHint, printJson, printLine } from "../output.ts";
import { terminalProgress, waitingFor } from "../waiting.ts";
import { treeLines } from "../timeline_tree.ts";

const TENANT_HELP = "which tenant (default: the default one)";

function create() {
  const made = new Command("create")
    .description("create another root timeline: an empty cluster of its own")
    .requiredOption("--branch-name <name>", "its branch name")
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--timeline-id <id>", "its id (default: a random one)", timelineId)
    .option("--pg-version <major>", "PostgreSQL major version (default: the tenant's)", count(1))
    .option("--data-checksums", "pages carry checksums (default: as init says, or from 18 on)")
    .option("--no-data-checksums", "pages carry no checksums")
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      const { createTimeline } = await import("../control_plane/tenants.ts");
      const created = await waitingFor(
        "Creating the timeline",
        createTimeline(env, tenant, options.branchName, {
          ...(options.timelineId === undefined ? {} : { timelineId: options.timelineId }),
          ...(options.pgVersion === undefined ? {} : { pgVersion: options.pgVersion }),
          ...(options.dataChecksums === undefined ? {} : { dataChecksums: options.dataChecksums }),
        }, terminalProgress()),
      );
      const { timelineId: timeline, startLsn } = created;
      if (options.json) printJson({ timeline_id: timeline, start_lsn: startLsn });
      else printLine(`Created timeline '${timeline}' at Lsn ${startLsn} for tenant: ${tenant}`);
    });
  return withExamples(
    made,
    ["neon timeline create --branch-name blank", "an empty cluster, as from initdb"],
    ["neon timeline create --branch-name new18 --pg-version 18"],
  );
}

/** Throws if `--start` could not give a branch that is about to be made an endpoint of its name. */
function checkStart(env: Environment, branchName: string): void {
  if (!isEndpointName(branchName)) {
    throw new BadRequest(
      `Cannot start an endpoint of the branch's name "${branchName}": an endpoint's has up to 63 ` +
        `letters, digits, "_" and "-"; go without --start, then "neon endpoint start NAME ` +
        `--branch-name ${branchName}"`,
    );
  }
  const record = loadEndpointRecord(env.repoDir, branchName);
  if (record === undefined) return;
  throw new Conflict(
    `Cannot start an endpoint of the branch's name "${branchName}": it exists on timeline ` +
      `${record.timeline_id}; "neon endpoint stop ${branchName} --destroy" first, or go without ` +
      `--start`,
  );
}

/** What a start needs, got while the daemons make the branch. */
function prepareStart(env: Environment) {
  const running = computeClient(env).endpoints();
  running.catch(() => {}); // thrown by the start
  const module = import("../control_plane/endpoints.ts");
  module.catch(() => {}); // likewise
  return { module, running };
}

/** Starts the endpoint of the branch's name, making it if need be; where it is then. */
async function startOn(
  tenant: TenantId,
  branchName: string,
  { module, running }: ReturnType<typeof prepareStart>,
): Promise<string> {
  const { connectionString, startEndpoint } = await module;
  const { record } = await waitingFor(
    `Waiting for PostgreSQL on ${branchName}`,
    startEndpoint(openEnvironment(), tenant, branchName, { branch: branchName, tenant, running }),
  );
  return connectionString(record.pg_port);
}

function branch() {
  const made = new Command("branch")
    .description("make a branch: by default of everything that is committed on main now")
    .requiredOption("--branch-name <name>", "name of the new branch")
    .option("--ancestor-branch-name <branch>", "the branch to branch from", MAIN_BRANCH)
    .option("--ancestor-start-lsn <lsn>", "branch in the past, at this LSN", lsn)
    .addOption(
      new Option(
        "--ancestor-start-timestamp <time>",
        "branch in the past, with what was committed by then: RFC 3339, or '5 minutes ago'",
      ).argParser(time).conflicts("ancestorStartLsn"),
    )
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--timeline-id <id>", "its id (default: a random one)", timelineId)
    .option("--if-not-exists", "succeed when a branch of that name is there already")
    .option("--start", "and start an endpoint of the branch's name on it")
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      const isThere = branchTimeline(env.config, tenant, options.branchName) !== undefined;
      if (options.start && !isThere) checkStart(env, options.branchName);
      let prepared: ReturnType<typeof prepareStart> | undefined;
      const created = await waitingFor(
        "Waiting for the pageserver to have all that is committed",
        createBranch(env, tenant, options.branchName, {
          ancestorBranch: options.ancestorBranchName,
          ...(options.ancestorStartLsn === undefined
            ? {}
            : { ancestorLsn: options.ancestorStartLsn }),
          ...(options.ancestorStartTimestamp === undefined
            ? {}
            : { ancestorTime: options.ancestorStartTimestamp }),
          ...(options.timelineId === undefined ? {} : { timelineId: options.timelineId }),
          ifNotExists: options.ifNotExists === true,
          ...(options.start ? { whileMade: () => prepared = prepareStart(env) } : {}),
        }),
      );
      const { timelineId: timeline, ancestorBranch } = created;
      if (!options.json && created.already) {
        printHint(`branch ${options.branchName} is there already: timeline ${timeline}`);
      } else if (!options.json) {
        printLine(
          `Created timeline '${timeline}' at Lsn ${created.lsn} for tenant: ${tenant}. ` +
            `Ancestor timeline: '${ancestorBranch}'`,
        );
      }
      const url = options.start
        ? await startOn(tenant, options.branchName, prepared ?? prepareStart(env))
        : undefined;
      if (options.json) {
        printJson({
          branch_name: options.branchName,
          timeline_id: timeline,
          lsn: created.lsn,
          ...(url === undefined ? {} : { connection_string: url }),
        });
      } else if (url !== undefined) {
        printLine(`Starting postgres at '${url}'`);
      }
    });
  return withExamples(
    made,
    ["neon timeline branch --branch-name dev"],
    ["neon timeline branch --branch-name pr-17 --start", "with PostgreSQL on it, in one command"],
    ["neon timeline branch --branch-name dev2 --ancestor-branch-name dev"],
    ["neon timeline branch --branch-name before --ancestor-start-lsn 0/16F9A00"],
    ["neon timeline branch --branch-name old --ancestor-start-timestamp '1 hour ago'"],
  );
}

function list() {
  const made = new Command("list")
    .description("draw the tree of a tenant's timelines")
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const timelines = await listTimelines(env, tenantOf(env, options.tenantId));
      if (options.json) printJson(timelines);
      else for (const line of treeLines(timelines)) printLine(line);
    });
  return withExamples(made, ["neon timeline list"], ["neon timeline list --json"]);
}

function compact() {
  const made = new Command("compact")
    .description("make the layers that are due now, so that first reads of pages are short")
    .option("--branch-name <branch>", "which branch", MAIN_BRANCH)
    .option("--tenant-id <tenant>", TENANT_HELP, tenantId)
    .option("--force-image-layer-creation", "images of every page that is read from several values")
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const result = await waitingFor(
        "The pageserver is compacting the timeline",
        compactTimeline(env, tenantOf(env, options.tenantId), options.branchName, {
          force: options.forceImageLayerCreation === true,
        }),
      );
      if (options.json) return printJson(result);
      const { image_layers: layers, image_pages: pages, image_bytes: bytes } = result;
      if (layers === 0) printLine("No image layers are due");
      else printLine(`Created image layers: ${layers}, with ${pages} pages in ${bytes} bytes`);
      if (result.failed_pages > 0) {
        printHint(`${result.failed_pages} pages got none: ${result.first_failure}`);
      }
      const { replaced_delta_layers: replaced, delta_layers: deltas } = result;
      if (replaced > 0) {
        printLine(
          `Rewrote delta layers in key order: ${replaced}, as ${deltas} ` +
            `with ${result.delta_bytes} bytes`,
        );
      }
      if (result.delta_failure !== null) {
        printHint(`Delta layers stay as they are for now: ${result.delta_failure}`);
      }
    });
  return withExamples(
    made,
    ["neon timeline compact", "of main; the pageserver also does so by itself"],
    ["neon timeline compact --branch-name dev --force-image-layer-creation"],
  );
}

/** The command. */
export function command(): Command {
  const made = new Command("timeline").description("create, branch, list and compact timelines");
  for (const sub of [create(), branch(), list(), compact()]) {
    made.addCommand(sub as unknown as Command);
  }
  return withExamples(
    made as unknown as Command,
    ["neon timeline branch --branch-name dev"],
    ["neon timeline list"],
  );
}
