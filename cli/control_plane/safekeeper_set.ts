/**
 * The safekeepers of a local Neon as a set that changes: which of them a timeline is to have, and
 * what a new one gets. Plain functions over the configuration.
 *
 * Ids are never given again: a vote or an acknowledgement of one must never count for another. The
 * ports are: those of a safekeeper that is gone are spare ones.
 */
import { Unavailable } from "../../libs/utils/errors.ts";
import { type Config, LOOPBACK, type SafekeeperConfig } from "./config.ts";

/** Safekeepers for which ports are set aside. */
export const SPARE_SAFEKEEPERS = 3;

/** A configuration as far as this goes. */
type Nodes = Pick<Config, "safekeepers" | "former_safekeepers" | "spare_safekeeper_ports">;

/** Whether it is to give up its timelines. */
export function isLeaving({ leaving, replaced_by }: SafekeeperConfig): boolean {
  return leaving === true || replaced_by !== undefined;
}

/** The safekeepers that new timelines are made on. */
export function lastingSafekeepers(config: Nodes): SafekeeperConfig[] {
  return config.safekeepers.filter((safekeeper) => !isLeaving(safekeeper));
}

/** What is under way with a safekeeper. */
export type SafekeeperChange = "joining" | "leaving" | { readonly replaced_by: number };

/** See SafekeeperChange; null if nothing is. */
export function changeOf(safekeeper: SafekeeperConfig): SafekeeperChange | null {
  const { replaced_by, leaving, joining } = safekeeper;
  if (replaced_by !== undefined) return { replaced_by };
  return leaving === true ? "leaving" : joining === true ? "joining" : null;
}

/** Whom a timeline of these safekeepers is to have, in the order of their ids. */
export function wantedMembers(config: Nodes, members: readonly number[]): number[] {
  const wanted = new Set(
    config.safekeepers.filter((safekeeper) => safekeeper.joining === true).map(({ id }) => id),
  );
  for (const member of members) {
    let known = config.safekeepers.find(({ id }) => id === member);
    // One that takes a place may have to be replaced itself
    while (known?.replaced_by !== undefined) {
      const { replaced_by: next } = known;
      known = config.safekeepers.find(({ id }) => id === next);
    }
    if (known === undefined) wanted.add(member);
    else if (!isLeaving(known)) wanted.add(known.id);
  }
  return [...wanted].sort((a, b) => a - b);
}

/** Ports of safekeepers to come: those set aside, else those after the ones in use. */
export function sparePorts(config: Nodes): [number, number][] {
  if (config.spare_safekeeper_ports !== undefined) return config.spare_safekeeper_ports;
  const taken = new Set(
    config.safekeepers.flatMap(({ pg_port, http_port }) => [pg_port, http_port]),
  );
  const after = (ports: number[]) => {
    let port = Math.max(...ports);
    while (taken.has(port)) port++;
    taken.add(port);
    return port;
  };
  return Array.from({ length: SPARE_SAFEKEEPERS }, () => [
    after(config.safekeepers.map(({ pg_port }) => pg_port)),
    after(config.safekeepers.map(({ http_port }) => http_port)),
  ]);
}

/** Adds a safekeeper with the next id and spare ports. Throws Unavailable without spare ports. */
export function addSafekeeper(config: Nodes): SafekeeperConfig {
  const [ports, ...left] = sparePorts(config);
  if (ports === undefined) {
    throw new Unavailable(
      "Cannot add a safekeeper: no ports are set aside for it; add a pair to " +
        "spare_safekeeper_ports in .neon/config, and restart the daemons",
    );
  }
  const ids = [...config.safekeepers, ...config.former_safekeepers ?? []].map(({ id }) => id);
  const added = { id: Math.max(...ids) + 1, pg_port: ports[0], http_port: ports[1] };
  config.spare_safekeeper_ports = left;
  config.safekeepers.push(added);
  return added;
}

/** Takes a safekeeper out; its ports are spare ones then. */
export function forgetSafekeeper(
  config: Nodes,
  { id, pg_port, http_port, replaced_by }: SafekeeperConfig,
): void {
  config.spare_safekeeper_ports = [...sparePorts(config), [pg_port, http_port]];
  config.safekeepers = config.safekeepers.filter((other) => other.id !== id);
  config.former_safekeepers = [
    ...config.former_safekeepers ?? [],
    replaced_by === undefined ? { id } : { id, replaced_by },
  ];
}

/** A safekeeper as a member of a timeline. */
export function memberOf({ id, pg_port }: SafekeeperConfig) {
  return { id, host: LOOPBACK, pgPort: pg_port };
}
