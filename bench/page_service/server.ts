/**
 * A page service on a repository directory and nothing else: what bench/page_service.ts measures.
 * Arguments: directory, tenant. Prints its port, ends at SIGTERM.
 */
import { setImmediate } from "node:timers/promises";
import { servePg } from "../../libs/pgwire/server.ts";
import { parseTenantId } from "../../libs/utils/id.ts";
import { servePageServiceSession } from "../../pageserver/page_service/commands.ts";
import { PageReader } from "../../pageserver/page_service/page_reader.ts";
import { TenantManager } from "../../pageserver/repository/tenant_manager.ts";

/** The pageserver's default. */
const PAGE_CACHE_BYTES = 64 * 1024 * 1024;

const [directory, tenant] = Deno.args;
const now = () => performance.now();
const pause = () => setImmediate();
const manager = TenantManager.open(directory!, { now, pause, readsAlongside: true });
await manager.attach(parseTenantId(tenant!), 1);
const stopping = new AbortController();
const reader = new PageReader(PAGE_CACHE_BYTES);
const context = {
  manager,
  reader,
  waitLsnTimeoutMs: 60_000,
  signal: stopping.signal,
  now,
  pause,
  unixNow: () => Date.now(),
};
const server = servePg({
  hostname: "127.0.0.1",
  port: 0,
  onConnection: (session) => servePageServiceSession(session, context),
});
console.log(server.port);
Deno.addSignalListener("SIGTERM", async () => {
  stopping.abort();
  await server.close();
  await manager.shutdown();
  Deno.exit(0);
});
