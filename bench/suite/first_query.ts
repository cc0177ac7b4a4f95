/**
 * From a clean clone to the first query, by the README's one command: with nothing downloaded, and
 * with everything in the caches. Its ports are others than usual, because those may be in use.
 */
import { join } from "node:path";
import { isPortFree } from "../../cli/control_plane/endpoint_records.ts";
import { programFile } from "../../cli/control_plane/supervisor.ts";
import type { Group } from "./row.ts";

async function run(cwd: string, env: Record<string, string>, command: string, args: string[]) {
  const { success, stderr } = await new Deno.Command(command, { args, cwd, env, stdin: "null" })
    .output();
  if (success) return;
  throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
}

/** Where a port base is looked for, and how many ports have to be free behind one. */
const BASE_MIN = 12_000;
const BASE_MAX = 30_000;
const PORTS = 150;

function freePortBase(): number {
  for (let base = BASE_MIN; base < BASE_MAX; base += PORTS) {
    const ports = Array.from({ length: PORTS }, (_, n) => base + n);
    if (ports.every((port) => isPortFree("127.0.0.1", port))) return base;
  }
  throw new Error(`Cannot find ${PORTS} free ports in a row`);
}

/** Seconds from the start of `git clone` until the query has answered. */
async function cloneToQuery(directory: string, caches: string): Promise<number> {
  const env = {
    DENO_DIR: join(caches, "deno"),
    NEON_CACHE_DIR: join(caches, "neon"),
    NEON_DENO: Deno.execPath(),
    NEON_REPO_DIR: join(directory, ".neon"),
  };
  const ports = ["--port-base", String(freePortBase())];
  const begun = performance.now();
  await run(Deno.cwd(), env, "git", ["clone", "--quiet", programFile("."), directory]);
  try {
    await run(directory, env, "bin/neon", ["quickstart", ...ports]);
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
