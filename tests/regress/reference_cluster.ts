/**
 * A stock cluster of the same programs and kind as the endpoint's, that may make no tablespaces
 * either: what the tests give there is what they have to give on an endpoint.
 */
import { join } from "node:path";
import { StockPostgres } from "../../bench/stock_postgres.ts";
import { initdbOptions } from "../../cli/control_plane/initdb_cache.ts";
import type { HostUser } from "../../cli/control_plane/host_user.ts";
import { configOnFreePorts } from "../../cli/local_neon.ts";

/** Starts one in a new directory under `parent`. */
export async function startReference(
  binDir: string,
  major: number,
  user: HostUser | undefined,
  parent: string,
  settings: Readonly<Record<string, string>>,
): Promise<StockPostgres> {
  const port = configOnFreePorts(1, major).compute.first_pg_port;
  const initdb = initdbOptions(major);
  const stock = await StockPostgres.start(binDir, user, parent, port, settings, initdb);
  Deno.chmodSync(join(stock.dataDir, "pg_tblspc"), 0o555);
  return stock;
}
