/** PostgreSQL's own check of tables and indexes, in every database of a server. */
import { databasesOf, query, runClient, type Server } from "./client_programs.ts";

/** What was checked. */
export interface AmcheckResult {
  readonly relations: number;
  readonly pages: number;
  readonly ginIndexes: number;
  readonly complaints: string[];
}

/** From 18 on amcheck knows GIN. */
const GIN_MAJOR = 18;

/** Checks heaps, B-trees down to every heap tuple, and GIN indexes where that can be done. */
export async function amcheck(
  binDir: string,
  major: number,
  server: Server,
): Promise<AmcheckResult> {
  const args = ["--all", "--install-missing", "--heapallindexed", "--parent-check", "--progress"];
  const { success, stdout, stderr } = await runClient(binDir, "pg_amcheck", server, args);
  const progress = [...stderr.matchAll(/(\d+)\/\d+ relations \(100%\), +(\d+)\/\d+ pages/g)].at(-1);
  const complaints = stdout.split("\n").filter((line) => line !== "");
  if (!success && complaints.length === 0) complaints.push(stderr.trim());
  let ginIndexes = 0;
  for (const database of major >= GIN_MAJOR ? await databasesOf(server) : []) {
    for (const index of await ginIndexesOf(server, database)) {
      ginIndexes++;
      try {
        await query(server, database, `SELECT gin_index_check('${index}'::regclass)`);
      } catch (thrown) {
        complaints.push(`${database} ${index}: ${thrown}`);
      }
    }
  }
  return {
    relations: Number(progress?.[1] ?? 0),
    pages: Number(progress?.[2] ?? 0),
    ginIndexes,
    complaints,
  };
}

async function ginIndexesOf(server: Server, database: string): Promise<string[]> {
  const rows = await query(
    server,
    database,
    `SELECT c.oid FROM pg_class c JOIN pg_am a ON a.oid = c.relam
     WHERE a.amname = 'gin' AND c.relkind = 'i' AND c.relpersistence = 'p'`,
  );
  return rows.map(([oid]) => oid!);
}
