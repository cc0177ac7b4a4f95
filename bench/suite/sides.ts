/**
 * The servers of a comparison: the same binaries, disk, user and buffer sizes. Whoever measures
 * lets them take turns, and changes who goes first, so that what else the machine does hits all.
 */
import { dirname } from "node:path";
import { pageserverClient } from "../../cli/control_plane/clients.ts";
import { postgresUser } from "../../cli/control_plane/host_user.ts";
import { configOnFreePorts, type LocalNeon } from "../../cli/local_neon.ts";
import type { CreatedTenant } from "../../mod.ts";
import type { LoadedServer } from "../cpu_load.ts";
import { endpointTarget, settle } from "../our_side.ts";
import { PG_MAJOR, StockPostgres } from "../stock_postgres.ts";
import { dropFromPageCache } from "./page_cache.ts";
import type { SideName } from "./row.ts";

/** Our endpoint, on a branch of its own tenant. */
const ENDPOINT = "main";

/** A server. */
export interface Side extends LoadedServer {
  readonly name: SideName;
  /** Has it do all that it can do beforehand for first reads. */
  compact(): Promise<void>;
  /** Starts it again with nothing in memory, and none of its files in the page cache. */
  restartCold(): Promise<void>;
}

/** All of them, with what they stand on. */
interface Sides extends AsyncDisposable {
  readonly all: readonly Side[];
  readonly local: LocalNeon;
  readonly tenant: CreatedTenant;
  readonly stock: StockPostgres;
}

/** Starts them: ours is a new tenant of `local`. */
export async function openSides(local: LocalNeon): Promise<Sides> {
  const tenant = await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint(ENDPOINT);
  const { bin_dir } = local.environment().config.postgres[0]!;
  const parent = dirname(local.directory);
  const user = postgresUser();
  const { compute, safekeepers } = configOnFreePorts(1, PG_MAJOR);
  const stock = await StockPostgres.start(bin_dir, user, parent, compute.first_pg_port);
  const withoutImages = await StockPostgres.start(bin_dir, user, parent, safekeepers[0]!.pg_port, {
    full_page_writes: "off",
  });
  return {
    all: [
      stockSide("stock", stock),
      stockSide("stock, no page images", withoutImages),
      ourSide(local, tenant, port),
    ],
    local,
    tenant,
    stock,
    async [Symbol.asyncDispose]() {
      await stock[Symbol.asyncDispose]();
      await withoutImages[Symbol.asyncDispose]();
    },
  };
}

function stockSide(name: SideName, server: StockPostgres): Side {
  return {
    name,
    target: server.target,
    directories: [server.dataDir],
    settle: async () => {},
    compact: async () => {},
    restartCold: () => server.restartAfter(() => dropFromPageCache(server.dataDir)),
  };
}

/** Cold means here: all of Neon has been stopped, and the endpoint has no page yet. */
function ourSide(local: LocalNeon, tenant: CreatedTenant, port: number): Side {
  return {
    name: "ours",
    target: endpointTarget(port),
    directories: [local.directory],
    settle: () => settle(local, tenant),
    compact: async () => {
      await settle(local, tenant);
      const pageserver = pageserverClient(local.environment());
      await pageserver.checkpoint(tenant.tenantId, tenant.timelineId);
      await pageserver.compact(tenant.tenantId, tenant.timelineId, true);
    },
    restartCold: async () => {
      await local.stop();
      await dropFromPageCache(local.directory);
      await local.start();
      await local.startEndpoint(ENDPOINT);
    },
  };
}

/** Lets all sides do something in each round, in turns; returns what each gave, by rounds. */
export async function inTurns<Result>(
  sides: readonly Side[],
  rounds: number,
  measure: (side: Side, round: number) => Promise<Result>,
): Promise<Map<SideName, Result[]>> {
  const results = new Map<SideName, Result[]>(sides.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < sides.length; turn++) {
      const side = sides[(round + turn) % sides.length]!;
      results.get(side.name)!.push(await measure(side, round));
      await side.settle();
    }
  }
  return results;
}

/** One number out of each result. */
export function valuesOf<Result>(
  results: ReadonlyMap<SideName, readonly Result[]>,
  pick: (result: Result) => number,
): { [side in SideName]?: number[] } {
  return Object.fromEntries([...results].map(([name, all]) => [name, all.map(pick)]));
}
