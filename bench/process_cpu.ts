/**
 * CPU time of a server's processes, by what they do. It can be compared also on a machine that has
 * other things to do, unlike transactions a second. From proc(5); where there is none, nothing.
 */
import { TICKS_A_SECOND } from "./pgbench.ts";

/** Seconds by process: "backends", "walsender", "compute", "safekeeper" and so on. */
export type CpuSeconds = ReadonlyMap<string, number>;

/** What the processes have used that work in `directories`, or were started on them. */
export function cpuSeconds(directories: readonly string[]): CpuSeconds {
  const used = new Map<string, number>();
  for (const pid of processes()) {
    try {
      const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      const workDir = Deno.readLinkSync(`/proc/${pid}/cwd`);
      const isTheirs = [workDir, ...words].some((path) =>
        directories.some((directory) => path === directory || path.startsWith(`${directory}/`))
      );
      if (!isTheirs) continue;
      const role = roleOf(words);
      used.set(role, (used.get(role) ?? 0) + secondsOf(pid));
    } catch (thrown) {
      if (isOver(thrown) || thrown instanceof Deno.errors.PermissionDenied) continue; // not theirs
      throw thrown;
    }
  }
  return used;
}

/** Whether that is what a process leaves that has ended (ESRCH: while it was looked at). */
function isOver(thrown: unknown): boolean {
  return thrown instanceof Deno.errors.NotFound ||
    (thrown instanceof Error && "code" in thrown && thrown.code === "ESRCH");
}

/** What was used between two looks. */
export function cpuBetween(before: CpuSeconds, after: CpuSeconds): CpuSeconds {
  return new Map([...after].map(([role, seconds]) => [role, seconds - (before.get(role) ?? 0)]));
}

function processes(): string[] {
  try {
    return [...Deno.readDirSync("/proc")].map(({ name }) => name)
      .filter((name) => /^\d+$/.test(name));
  } catch {
    return []; // another system
  }
}

/** Processes of PostgreSQL that are there whoever is connected, by the beginning of their titles. */
const BACKGROUND = [
  "archiver",
  "autovacuum",
  "background writer",
  "checkpointer",
  "io worker",
  "logical replication launcher",
  "walwriter",
];

/**
 * Daemons by their main program, others by their titles. What is left are sessions, and the
 * postmaster, which has the time of those that have ended.
 */
function roleOf(words: readonly string[]): string {
  const main = words.map((word) => /\/(\w+)\/main\.ts$/.exec(word)?.[1]).find((role) => role);
  if (main !== undefined) return main;
  const title = words[0]!.replace(/^postgres: /, "");
  if (title.startsWith("walsender")) return "walsender";
  return BACKGROUND.some((name) => title.startsWith(name)) ? "background" : "backends";
}

/** With what children have used that ended: a session ends with its client. */
function secondsOf(pid: string): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return ticks / TICKS_A_SECOND;
}
