/** What `.neon/config` has to look like to be used, whoever has edited or harmed it. */
import {
  either,
  flag,
  list,
  mapOf,
  optional,
  problemIn,
  table,
  text,
  tuple,
  whole,
} from "../../libs/utils/shape.ts";
import type { Config, PageserverConfig, SafekeeperConfig } from "./config.ts";
import { idShape, nodeIdShape, portShape, versionShape } from "./shapes.ts";

/** The compute host takes no endpoint of more. */
export const SAFEKEEPERS_MAX = 32;

const PORT = "([1-9]\\d{0,3}|[1-5]\\d{4}|6[0-4]\\d{3}|65[0-4]\\d{2}|655[0-2]\\d|6553[0-5])";
const address = text(
  new RegExp(`^(\\[[^\\]\\s]+\\]|[^[\\]\\s:]+):${PORT}$`),
  "of the form host:port",
);
const path = text(/^\//, "an absolute path");

const pageserver = table<PageserverConfig>({
  id: nodeIdShape,
  listen_pg_addr: address,
  listen_http_addr: address,
});

const safekeeper = table<SafekeeperConfig>({
  id: nodeIdShape,
  pg_port: portShape,
  http_port: portShape,
  joining: optional(flag),
  leaving: optional(flag),
  replaced_by: optional(nodeIdShape),
});

const config = table<Config>({
  format_version: whole(1, 1),
  pg_version: versionShape,
  data_checksums: optional(flag),
  default_tenant_id: optional(idShape),
  pg_distrib_dir: optional(path),
  private_key_path: optional(text(/^./, "a path")),
  public_key_path: optional(text(/^./, "a path")),
  broker: table<Config["broker"]>({ listen_addr: address, listen_http_addr: address }),
  compute: table<Config["compute"]>({ listen_http_addr: address, first_pg_port: portShape }),
  pageservers: list(pageserver, 1),
  safekeepers: list(safekeeper, 1),
  former_safekeepers: optional(list(table<NonNullable<Config["former_safekeepers"]>[number]>({
    id: nodeIdShape,
    replaced_by: optional(nodeIdShape),
  }))),
  spare_safekeeper_ports: optional(list(tuple(portShape, portShape))),
  postgres: list(table<Config["postgres"][number]>({ version: versionShape, bin_dir: path })),
  // The daemons know what is right here
  remote_storage: optional(mapOf(either(text(/^/, "a text"), whole(1, 1000)))),
  branch_name_mappings: mapOf(list(tuple(idShape, idShape))),
});

/** What is wrong with a configuration, in one line; undefined if nothing is. */
export function problemInConfig(value: unknown): string | undefined {
  const problem = problemIn(value, config);
  if (problem !== undefined) return problem;
  const { safekeepers, pageservers, private_key_path, public_key_path } = value as Config;
  if ((private_key_path === undefined) !== (public_key_path === undefined)) {
    return "private_key_path and public_key_path go together";
  }
  for (const [name, nodes] of Object.entries({ safekeepers, pageservers })) {
    const ids = nodes.map((node) => node.id);
    const twice = ids.find((id, i) => ids.indexOf(id) !== i);
    if (twice !== undefined) return `two ${name} have the id ${twice}`;
  }
  if (safekeepers.length <= SAFEKEEPERS_MAX) return undefined;
  return `safekeepers must have ${SAFEKEEPERS_MAX} or fewer entries`;
}
