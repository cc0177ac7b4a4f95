/** PostgreSQL's client programs of the build, against one server. */
import { dirname, join } from "node:path";
import type { Target } from "../../bench/pgbench.ts";
import { PgClient } from "../../libs/pgwire/client.ts";

/** A server, whichever database. */
export type Server = Omit<Target, "database">;

/** What a program said. */
interface Output {
  readonly success: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** The libraries of the build's programs are found beside them, wherever they have been copied. */
export function clientEnvironment(binDir: string, home: string): Record<string, string> {
  return {
    PATH: `${binDir}:/usr/bin:/bin`,
    LD_LIBRARY_PATH: join(dirname(binDir), "lib"),
    HOME: home,
    LC_ALL: "C",
  };
}

/** Runs a program of `binDir` to its end. */
export async function runClient(
  binDir: string,
  program: string,
  server: Server,
  args: readonly string[],
): Promise<Output> {
  const { success, stdout, stderr } = await new Deno.Command(join(binDir, program), {
    args: ["-h", "127.0.0.1", "-p", String(server.port), "-U", server.user, ...args],
    clearEnv: true,
    env: clientEnvironment(binDir, "/"),
    cwd: "/",
  }).output();
  const decoder = new TextDecoder();
  return { success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Runs one query in a database of the server. */
export async function query(server: Server, database: string, sql: string) {
  const client = await PgClient.connect({ hostname: "127.0.0.1", port: server.port }, {
    user: server.user,
    database,
  });
  try {
    return (await client.query(sql)).rows;
  } finally {
    client.close();
  }
}

/** Databases that can be connected to, by name. */
export async function databasesOf(server: Server): Promise<string[]> {
  const rows = await query(
    server,
    "postgres",
    "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1",
  );
  return rows.map(([name]) => name!);
}
