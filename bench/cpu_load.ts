/** A load of pgbench, with the CPU time that each kind of process took for a transaction. */
import { type Load, type Target, type TimedLoad, timedLoad } from "./pgbench.ts";
import { cpuBetween, type CpuSeconds, cpuSeconds } from "./process_cpu.ts";

/** Until a server has noticed that its sessions have ended, and has their time. */
const SESSIONS_END_MS = 200;

/** A server that is loaded, and where it works. */
export interface LoadedServer {
  readonly target: Target;
  /** Where its processes work. */
  readonly directories: readonly string[];
  /** Resolves when nothing of a load is left to be done, which would be charged to the next. */
  settle(): Promise<void>;
}

/** What a load gave, and CPU by process, in us a transaction; pgbench itself included. */
export interface CpuLoad extends TimedLoad {
  readonly cpuUs: Readonly<Record<string, number>>;
}

/** Loads a server, and waits until nothing is left to be done. */
export async function cpuLoad(
  pgbench: string,
  { target, directories, settle }: LoadedServer,
  load: Load,
): Promise<CpuLoad> {
  const { seconds } = load;
  const before = cpuSeconds(directories);
  const result = await timedLoad(pgbench, target, load);
  await settle();
  await new Promise((resolve) => setTimeout(resolve, SESSIONS_END_MS));
  const used: CpuSeconds = new Map([
    ["pgbench", result.clientCpu * seconds],
    ...cpuBetween(before, cpuSeconds(directories)),
  ]);
  const cpuUs = [...used].map(([role, cpu]) => [role, cpu * 1e6 / (result.tps * seconds)]);
  return { ...result, cpuUs: Object.fromEntries(cpuUs) };
}

/** CPU of all processes. */
export function totalUs({ cpuUs }: CpuLoad): number {
  return Object.values(cpuUs).reduce((sum, us) => sum + us, 0);
}
