/**
 * Memory of each daemon, at rest, under load and a good minute after it.
 *
 *   own        RssAnon: what would be free if it ended; the figure to judge by
 *   share      Pss: the same and its share of Deno's program file, which all daemons of a machine
 *              have in memory once
 *   resident   VmRSS: with that file as if each had one of its own
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
/** Time in which a daemon that has just started comes to rest, and one that was busy. */
const REST_MS = 15_000;
const LONG_REST_MS = 90_000;

interface Memory {
  readonly own: number;
  readonly share: number;
  readonly resident: number;
}

function memoryOf(pid: number): Memory {
  const megabytes = (file: string, name: string) => {
    const text = Deno.readTextFileSync(`/proc/${pid}/${file}`);
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)![1]) / KILOBYTES;
  };
  return {
    own: megabytes("status", "RssAnon"),
    share: megabytes("smaps_rollup", "Pss"),
    resident: megabytes("status", "VmRSS"),
  };
}

function largest(a: Memory, b: Memory): Memory {
  return {
    own: Math.max(a.own, b.own),
    share: Math.max(a.share, b.share),
    resident: Math.max(a.resident, b.resident),
  };
}

function memoryText({ own, share, resident }: Memory): string {
  return `${figure(own)} / ${figure(share)} / ${figure(resident)}`;
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
    for (const [name, now] of all(local)) highest.set(name, largest(highest.get(name)!, now));
    await pause(LOOK_MS);
  }
  await work;
  await pause(LONG_REST_MS);
  const after = all(local);
  return {
    title: "Memory of the daemons: own / share / resident (all of Deno's program counted)",
    rows: [...idle].map(([name, atRest]) => ({
      what: `${name}, at rest with one endpoint`,
      unit: "MB",
      values: { ours: [atRest.own] },
      notes: {
        ours: `share ${figure(atRest.share)}, resident ${figure(atRest.resident)}; ` +
          `under load ${memoryText(highest.get(name)!)}; ` +
          `a minute after ${memoryText(after.get(name)!)}`,
      },
      aim: "< 60 MB",
    })),
  };
}
