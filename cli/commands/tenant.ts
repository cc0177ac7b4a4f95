/** `neon tenant create|list|set-default|config`. */
import { Command } from "../command.ts";
import { pageserverClient } from "../control_plane/clients.ts";
import { openEnvironment, tenantOf } from "../control_plane/environment.ts";
import { createTenant, listTenants, setDefaultTenant } from "../control_plane/tenants.ts";
import {
  parseSettings,
  settingsWithoutEffect,
  type TenantSettings,
} from "../control_plane/tenant_settings.ts";
import { withExamples } from "../help.ts";
import { count, repeated, tenantId, timelineId } from "../options.ts";
import { printHint, printJson, printLine } from "../output.ts";
import { terminalProgress, waitingFor } from "../waiting.ts";

/** Says which settings only a later version goes by. */
function hintAtIdle(settings: TenantSettings): void {
  const idle = settingsWithoutEffect(settings);
  if (idle.length > 0) printHint(`stored, but without effect in this version: ${idle.join(", ")}`);
}

function create() {
  const made = new Command("create")
    .description("create a tenant: a PostgreSQL cluster with a first timeline, the branch main")
    .option("--tenant-id <id>", "its id (default: a random one)", tenantId)
    .option("--timeline-id <id>", "id of its first timeline (default: a random one)", timelineId)
    .option("-c, --config <key:value>", "a setting of the tenant (may be repeated)", repeated)
    .option("--pg-version <major>", "PostgreSQL major version", count(1))
    .option("--data-checksums", "pages carry checksums (default: as init says, or from 18 on)")
    .option("--no-data-checksums", "pages carry no checksums")
    .option("--set-default", "make it the tenant that commands are about by default")
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const settings = parseSettings(options.config ?? []);
      const created = await waitingFor(
        "Creating the tenant",
        createTenant(env, {
          ...(options.tenantId === undefined ? {} : { tenantId: options.tenantId }),
          ...(options.timelineId === undefined ? {} : { timelineId: options.timelineId }),
          ...(options.pgVersion === undefined ? {} : { pgVersion: options.pgVersion }),
          ...(options.dataChecksums === undefined ? {} : { dataChecksums: options.dataChecksums }),
          ...(options.config === undefined ? {} : { settings }),
          setDefault: options.setDefault === true,
        }, terminalProgress()),
      );
      const { tenantId: tenant, timelineId: timeline, startLsn } = created;
      hintAtIdle(settings);
      if (options.json) {
        printJson({ tenant_id: tenant, timeline_id: timeline, start_lsn: startLsn });
        return;
      }
      printLine(`tenant ${tenant} successfully created on the pageserver`);
      printLine(
        `Created an initial timeline '${timeline}' at Lsn ${startLsn} for tenant: ${tenant}`,
      );
      if (options.setDefault) printLine(`Setting tenant ${tenant} as a default one`);
    });
  return withExamples(
    made,
    ["neon tenant create --set-default"],
    ["neon tenant create --pg-version 15 --config checkpoint_distance:67108864"],
  );
}

function list() {
  const made = new Command("list")
    .description("list tenants")
    .option("--json", "print JSON")
    .action(async (options) => {
      const tenants = await listTenants(openEnvironment());
      if (options.json) printJson(tenants);
      else {
        for (const { tenant_id, state, reason } of tenants) {
          printLine(`${tenant_id} ${state}${reason === null ? "" : `: ${reason}`}`);
        }
      }
    });
  return withExamples(made, ["neon tenant list"], ["neon tenant list --json"]);
}

function setDefault() {
  const made = new Command("set-default")
    .description("choose the tenant that commands are about by default")
    .requiredOption("--tenant-id <tenant>", "which tenant", tenantId)
    .action(async (options) => {
      await setDefaultTenant(openEnvironment(), options.tenantId);
      printLine(`Setting tenant ${options.tenantId} as a default one`);
    });
  return withExamples(
    made,
    ["neon tenant set-default --tenant-id 9ef87a5bf0d92544f6fafeeb3239695c"],
  );
}

function config() {
  const made = new Command("config")
    .description("replace a tenant's settings; without -c, show them")
    .option("--tenant-id <tenant>", "which tenant (default: the default one)", tenantId)
    .option("-c, --config <key:value>", "a setting (may be repeated)", repeated)
    .action(async (options) => {
      const env = openEnvironment();
      const tenant = tenantOf(env, options.tenantId);
      const pageserver = pageserverClient(env);
      if (options.config === undefined) {
        printJson(await pageserver.tenantConfig(tenant));
        return;
      }
      const settings = parseSettings(options.config);
      await pageserver.setTenantConfig(tenant, settings);
      hintAtIdle(settings);
      printLine(`tenant ${tenant} successfully configured on the pageserver`);
    });
  return withExamples(
    made,
    ["neon tenant config", "what is set, and what is in effect"],
    ["neon tenant config -c checkpoint_distance:67108864 -c checkpoint_timeout:5m"],
  );
}

/** The command. */
export function command(): Command {
  const made = new Command("tenant").description("create, list and configure tenants");
  for (const sub of [create(), list(), setDefault(), config()]) {
    made.addCommand(sub as unknown as Command);
  }
  return withExamples(
    made as unknown as Command,
    ["neon tenant create --set-default"],
    ["neon tenant list"],
  );
}
