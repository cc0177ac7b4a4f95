/**
 * The pageserver daemon: `main.ts -D DIR`.
 *
 * DIR holds pageserver.toml, pageserver.pid (locked while the daemon lives) and tenants/. Wires the
 * repository, WAL receivers, page service and HTTP API together. SIGTERM flushes everything and
 * exits, SIGQUIT exits at once: what is not on disk then comes again from the safekeepers.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { setImmediate } from "node:timers/promises";
import { BrokerClient } from "../broker/client.ts";
import { servePg } from "../libs/pgwire/server.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { configureLogging, logger } from "../libs/utils/log.ts";
import { acquirePidFile } from "../libs/utils/pid_file.ts";
import { CONFIG_FILE_NAME, parseConfig, splitAddress } from "./config.ts";
import { httpApi } from "./http_api.ts";
import { servePageServiceSession } from "./page_service/commands.ts";
import { PageReader } from "./page_service/page_reader.ts";
import { TenantManager } from "./repository/tenant_manager.ts";
import { WalReceivers } from "./wal_receiver/wal_receivers.ts";

const log = logger("pageserver");

const TICK_MS = 1000;
const BYTES_PER_MIB = 1024 * 1024;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { directory: { type: "string", short: "D" } },
    args: Deno.args,
  });
  if (values.directory === undefined) throw new Error("Cannot start: -D DIR is missing");
  const directory = values.directory;
  const path = join(directory, CONFIG_FILE_NAME);
  const config = parseConfig(Deno.readTextFileSync(path), path);
  configureLogging(config.log_level);
  const pidFile = acquirePidFile(join(directory, "pageserver.pid"));

  const now = () => performance.now();
  const unixNow = () => Date.now();
  const pause = () => setImmediate();
  const stopping = new AbortController();
  const manager = TenantManager.open(directory, { now, pause });
  const reader = new PageReader(config.page_cache_mib * BYTES_PER_MIB);
  const receivers = new WalReceivers({
    manager,
    reader,
    pageserverId: config.id,
    now,
    unixNow,
    pause,
  });
  const waitLsnTimeoutMs = config.wait_lsn_timeout_ms;
  const pageService = servePg({
    ...splitAddress(config.listen_pg_addr),
    onConnection: (session) =>
      servePageServiceSession(session, {
        manager,
        reader,
        waitLsnTimeoutMs,
        signal: stopping.signal,
        now,
        unixNow,
      }),
  });
  const http = Deno.serve(
    { ...splitAddress(config.listen_http_addr), onListen: () => {} },
    httpApi({
      id: config.id,
      manager,
      reader,
      receivers,
      waitLsnTimeoutMs,
      signal: stopping.signal,
    }),
  );
  const broker = new BrokerClient(config.broker_endpoint);
  broker.subscribeAll((info) => receivers.onInfo(info));
  const ticking = setInterval(() => manager.tick(), TICK_MS);
  log.info("pageserver {id} listens on {pg} and {http}", {
    id: config.id,
    pg: `${pageService.hostname}:${pageService.port}`,
    http: config.listen_http_addr,
  });

  const stop = async () => {
    log.info("stopping");
    clearInterval(ticking);
    stopping.abort();
    broker.close();
    await Promise.all([pageService.close(), http.shutdown(), receivers.stop()]);
    await manager.shutdown();
    pidFile.release();
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", () => void stop().catch(fail));
  Deno.addSignalListener("SIGINT", () => void stop().catch(fail));
  Deno.addSignalListener("SIGQUIT", () => Deno.exit(0));
}

function fail(thrown: unknown): never {
  console.error(messageOf(thrown));
  Deno.exit(1);
}

if (import.meta.main) await main().catch(fail);
