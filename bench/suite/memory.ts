/** Memory of each daemon, at rest and under load, as the kernel counts it (VmRSS). */
import { allRoles } from "../../cli/control_plane/lifecycle.ts";
import { daemonPid } from "../../cli/control_plane/supervisor.ts";
import type { LocalNeon } from "../../cli/local_neon.ts";
import { load } from "../pgbench.ts";
import { figure } from "../report.ts";
import type { Group } from "./row.ts";
import type { Side } from "./sides.ts";

const KILOBYTES = 1024;
const LOOK_MS = 100;
const CLIENTS = 8;
/** Time in which a daemon that has just started comes to rest. */
const REST_MS = 3000;

function residentMegabytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) / KILOBYTES;
}

function all(local: LocalNeon): Map<string, number> {
  return new Map(
    allRoles(local.environment()).map((role) => [
      role.name,
      residentMegabytes(daemonPid(role)!),
    ]),
  );
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Measures the daemons of `local`, of which `ours` is an endpoint: at rest first. */
export async function memory(
  pgbench: string,
  local: LocalNeon,
  ours: Side,
  seconds: number,
): Promise<Group> {
  await local.stop();
  await local.start();
  await local.startEndpoint("main");
  await pause(REST_MS);
  const idle = all(local);
  const highest = new Map(idle);
  let loading = true;
  const work = load(pgbench, ours.target, { script: "tpcb", clients: CLIENTS, seconds })
    .finally(() => loading = false);
  while (loading) {
    for (const [name, megabytes] of all(local)) {
      highest.set(name, Math.max(highest.get(name)!, megabytes));
    }
    await pause(LOOK_MS);
  }
  await work;
  return {
    title: `Memory of the daemons: at rest with one endpoint (highest of ${seconds} s of load)`,
    rows: [...idle].map(([name, megabytes]) => ({
      what: name,
      unit: "MB",
      values: { ours: [megabytes] },
      notes: { ours: `under load ${figure(highest.get(name)!)} MB` },
      aim: "< 60 MB at rest",
    })),
  };
}
