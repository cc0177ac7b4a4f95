/** `neon status`: what is running. Exit code 0 if all daemons are, 1 otherwise. */
import { Command } from "@commander-js/extra-typings";
import { formatMode } from "../control_plane/endpoint_modes.ts";
import { describeStatus, listEndpoints } from "../control_plane/endpoints.ts";
import { displayPath, openEnvironment } from "../control_plane/environment.ts";
import { allRoles, roleStatus } from "../control_plane/lifecycle.ts";
import { describeStorage } from "../../libs/remote_storage/location.ts";
import { withExamples } from "../help.ts";
import { printHint, printJson, printTable } from "../output.ts";

/** The command. */
export function command(): Command {
  const made = new Command("status")
    .description("show which daemons and endpoints are running")
    .option("--json", "print JSON")
    .action(async (options) => {
      const env = openEnvironment();
      const roles = await Promise.all(allRoles(env).map(roleStatus));
      const endpoints = await listEndpoints(env);
      const { remote_storage = null } = env.config;
      if (options.json) {
        printJson({ repo_dir: env.repoDir, daemons: roles, endpoints, remote_storage });
      } else {
        const rows = [
          ...roles.map((role) => [role.name, role.address, String(role.pid ?? "---"), role.status]),
          ...endpoints.map((endpoint) => [
            `endpoint ${endpoint.endpoint}` +
            (endpoint.mode === "Primary" ? "" : ` (${formatMode(endpoint.mode)})`),
            endpoint.address,
            "---",
            describeStatus(endpoint),
          ]),
          ...(remote_storage === null
            ? []
            : [["remote storage", describeStorage(remote_storage), "---", "configured"]]),
        ];
        printTable(["NAME", "ADDRESS", "PID", "STATUS"], rows);
      }
      if (roles.every((role) => role.status === "running")) return;
      if (!options.json) {
        printHint(`not everything of ${displayPath(env.repoDir)} is running: neon start`);
      }
      Deno.exitCode = 1;
    });
  return withExamples(made as unknown as Command, ["neon status"], ["neon status --json"]);
}
