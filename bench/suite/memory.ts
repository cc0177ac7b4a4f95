/**
 * Memory of each daemon, at rest and under load: its own (RssAnon: what would be free if it ended),
 * and all that is resident (VmRSS), of which Deno's program file is shared by all of them.
 */
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

interface Memory {
  readonly own: number;
  readonly resident: number;
}

function memoryOf(pid: number): Memory {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const megabytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)![1]) / KILOBYTES;
  return { own: megabytes("RssAnon"), resident: megabytes("VmRSS") };
}

function all(local: LocalNeon): Map<string, Memory> {
  const roles = allRoles(local.environment());
  return new Map(roles.map((role) => [role.name, memoryOf(daemonPid(role)!)]));
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
    for (const [name, { own, resident }] of all(local)) {
      const before = highest.get(name)!;
      const most = Math.max(before.resident, resident);
      highest.set(name, { own: Math.max(before.own, own), resident: most });
    }
    await pause(LOOK_MS);
  }
  await work;
  return {
    title: "Memory of the daemons: their own (and resident, with Deno's program, which all share)",
    rows: [...idle].map(([name, atRest]) => {
      const most = highest.get(name)!;
      return {
        what: `${name}, at rest with one endpoint`,
        unit: "MB",
        values: { ours: [atRest.own] },
        notes: {
          ours: `resident ${figure(atRest.resident)}; under load ${figure(most.own)}, ` +
            `resident ${figure(most.resident)}`,
        },
        aim: "< 60 MB",
      };
    }),
  };
}
