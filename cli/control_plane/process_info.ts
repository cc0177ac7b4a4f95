/**
 * What Linux says about a process: since when it runs, and the memory that it and its children have
 * for themselves. Elsewhere, and of a process that is gone, nothing is known.
 *
 *   /proc/<pid>/stat     field 22: start, in clock ticks after boot
 *   /proc/stat           "btime 1763740000": when the machine booted
 *   /proc/<pid>/status   "RssAnon: 52300 kB", "RssShmem: 1200 kB"
 */

/** Clock ticks a second in /proc, the same on every Linux (USER_HZ). */
const TICKS_PER_SECOND = 100;

/** What is known of a process. */
interface ProcessInfo {
  /** Seconds since 1970. */
  startedAt: number;
  /** Its own memory and its children's, with what they share counted once. */
  memoryBytes: number;
}

/** Looks at a process; undefined where nothing is known of it. */
export function processInfo(pid: number): ProcessInfo | undefined {
  try {
    const boot = Number(/^btime (\d+)$/m.exec(Deno.readTextFileSync("/proc/stat"))?.[1]);
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // "123 (the name) S 1 ...": the name may hold spaces and parentheses
    const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
    const family = [pid, ...childrenOf(pid)].map(memoryOf);
    const own = family.reduce((sum, { anonymous }) => sum + anonymous, 0);
    const shared = Math.max(...family.map(({ shared }) => shared));
    return { startedAt: boot + ticks / TICKS_PER_SECOND, memoryBytes: own + shared };
  } catch {
    return undefined; // no such process, or not Linux
  }
}

function childrenOf(pid: number): number[] {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
    return text.split(" ").filter((word) => word !== "").map(Number);
  } catch {
    return []; // a kernel without the file
  }
}

function memoryOf(pid: number): { anonymous: number; shared: number } {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const bytes = (name: string) =>
      1024 * Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(status)?.[1] ?? 0);
    return { anonymous: bytes("RssAnon"), shared: bytes("RssShmem") };
  } catch {
    return { anonymous: 0, shared: 0 }; // ended meanwhile
  }
}
