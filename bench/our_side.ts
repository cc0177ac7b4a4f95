/** Our side of a comparison: a local Neon, its commands timed, its endpoints asked. */
import { computeClient, pageserverClient } from "../cli/control_plane/clients.ts";
import { SUPERUSER } from "../cli/control_plane/endpoints.ts";
import type { LocalNeon } from "../cli/local_neon.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import type { CreatedTenant } from "../mod.ts";
import { runNeon } from "../tests/harness.ts";
import type { Target } from "./pgbench.ts";

const CAUGHT_UP_MS_MAX = 120_000;
const LOOK_MS = 20;

/** An endpoint, for pgbench and `query`. */
export function endpointTarget(port: number): Target {
  return { port, user: SUPERUSER, database: "postgres" };
}

/** Runs queries in one session; returns the rows of the last. */
export async function query(target: Target, ...queries: string[]): Promise<(string | null)[][]> {
  const { port, user, database } = target;
  const client = await PgClient.connect({ hostname: "127.0.0.1", port }, { user, database });
  try {
    let rows: (string | null)[][] = [];
    for (const sql of queries) rows = (await client.query(sql)).rows;
    return rows;
  } finally {
    client.close();
  }
}

/** How long `work` takes. */
export async function timedMs(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** Runs a command; returns what it printed and how long it took. */
export async function timedCommand(
  local: LocalNeon,
  ...args: string[]
): Promise<{ stdout: string; ms: number }> {
  const begun = performance.now();
  const { code, stdout, stderr } = await runNeon(local.directory, args);
  const ms = performance.now() - begun;
  if (code !== 0) throw new Error(`neon ${args.join(" ")} failed: ${stderr}`);
  return { stdout, ms };
}

/** Waits until the pageserver has all WAL, so that its work is not charged to what follows. */
export async function settle(
  local: LocalNeon,
  { tenantId, timelineId }: CreatedTenant,
  msMax = CAUGHT_UP_MS_MAX,
): Promise<void> {
  const env = local.environment();
  const deadline = performance.now() + msMax;
  while (performance.now() < deadline) {
    const writer = await computeClient(env).timeline(tenantId, timelineId);
    const { last_record_lsn } = await pageserverClient(env).timeline(tenantId, timelineId);
    if (writer === undefined || parseLsn(last_record_lsn) >= parseLsn(writer.commit_lsn)) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  throw new Error("The pageserver does not catch up");
}
