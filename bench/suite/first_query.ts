/**
 * From a clean clone to the first query, by the README's one command: with nothing downloaded, and
 * with everything in the caches. `neon init` comes before it, because the ports have to be free.
 */
import { join } from "node:path";
import { stringify } from "smol-toml";
import { configOnFreePorts } from "../../cli/local_neon.ts";
import { programFile } from "../../cli/control_plane/supervisor.ts";
import { PG_MAJOR } from "../stock_postgres.ts";
import type { Group } from "./row.ts";

async function run(cwd: string, env: Record<string, string>, command: string, args: string[]) {
  const { success, stderr } = await new Deno.Command(command, { args, cwd, env, stdin: "null" })
    .output();
  if (success) return;
  throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
}

/** Seconds from the start of `git clone` until the query has answered. */
async function cloneToQuery(directory: string, caches: string): Promise<number> {
  const env = {
    DENO_DIR: join(caches, "deno"),
    NEON_CACHE_DIR: join(caches, "neon"),
    NEON_DENO: Deno.execPath(),
    NEON_REPO_DIR: join(directory, ".neon"),
  };
  const { broker, compute, pageservers, safekeepers } = configOnFreePorts(1, PG_MAJOR);
  const begun = performance.now();
  await run(Deno.cwd(), env, "git", ["clone", "--quiet", programFile("."), directory]);
  try {
    const ports = stringify({ broker, compute, pageservers, safekeepers });
    Deno.writeTextFileSync(join(directory, "ports.toml"), ports);
    await run(directory, env, "bin/neon", ["init", "--config", "ports.toml"]);
    await run(directory, env, Deno.execPath(), ["task", "quickstart"]);
    return (performance.now() - begun) / 1000;
  } finally {
    await run(directory, env, "bin/neon", ["stop", "-m", "immediate"]);
  }
}

/** Measures, `rounds` times each with empty and with full caches. */
export async function firstQuery(rounds: number): Promise<Group> {
  const empty: number[] = [];
  const full: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const directory = Deno.makeTempDirSync({ prefix: "clone-" });
    Deno.chmodSync(directory, 0o755); // PostgreSQL's user passes through
    try {
      const caches = join(directory, "caches");
      empty.push(await cloneToQuery(join(directory, "first"), caches));
      full.push(await cloneToQuery(join(directory, "second"), caches));
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  }
  return {
    title: "From a clean clone to the first query",
    rows: [
      { what: "nothing downloaded before", unit: "s", values: { ours: empty } },
      { what: "everything downloaded before", unit: "s", values: { ours: full } },
    ],
  };
}
