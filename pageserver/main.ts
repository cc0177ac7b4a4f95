/**
 * The pageserver daemon: `main.ts -D DIR`, settings as in config.ts, data in DIR/tenants.
 *
 * Wires the repository, WAL receivers, page service and HTTP API together. SIGTERM flushes
 * everything and exits, SIGQUIT exits at once: what is not on disk then comes again from the
 * safekeepers.
 */
import { setImmediate } from "node:timers/promises";
import type { z } from "zod";
import { BrokerClient } from "../broker/client.ts";
import { openAuthenticator } from "../libs/daemon/authentication.ts";
import { runDaemon } from "../libs/daemon/daemon.ts";
import { listenAt, serveHttp } from "../libs/daemon/listen.ts";
import { servePg } from "../libs/pgwire/server.ts";
import { logger } from "../libs/utils/log.ts";
import { tokenFile } from "../libs/utils/token_source.ts";
import { Compactor } from "./compaction/compactor.ts";
import { pageserverConfig } from "./config.ts";
import { httpApi } from "./http_api.ts";
import { servePageServiceSession } from "./page_service/commands.ts";
import { StartOver } from "./start_over.ts";
import { PageReader } from "./page_service/page_reader.ts";
import { TenantManager } from "./repository/tenant_manager.ts";
import { WalReceivers } from "./wal_receiver/wal_receivers.ts";

const log = logger("pageserver");

const TICK_MS = 1000;
const BYTES_PER_MIB = 1024 * 1024;

async function start(directory: string, config: z.infer<typeof pageserverConfig>) {
  const authenticator = await openAuthenticator(
    "pageserver",
    config.auth_validation_public_key_path,
  );
  const token = tokenFile(config.auth_token_path);
  const now = () => performance.now();
  const unixNow = () => Date.now();
  const pause = () => setImmediate();
  const stopping = new AbortController();
  const manager = TenantManager.open(directory, { now, pause, readsAlongside: true });
  const compactor = new Compactor({ manager, now });
  const reader = new PageReader(config.page_cache_mib * BYTES_PER_MIB);
  const receivers = new WalReceivers({
    manager,
    reader,
    pageserverId: config.id,
    token,
    now,
    unixNow,
    pause,
    brokerIsThere: () => broker.isConnected,
  });
  const startOver = new StartOver(manager, receivers);
  const waitLsnTimeoutMs = config.wait_lsn_timeout_ms;
  const { signal } = stopping;
  const serving = { manager, reader, waitLsnTimeoutMs, signal, now, pause, unixNow };
  const pageService = listenAt(config.listen_pg_addr, (at) =>
    servePg({
      ...at,
      login: authenticator && ((password) => authenticator.login(password)),
      onConnection: (session) => servePageServiceSession(session, serving),
    }));
  const http = serveHttp(
    config.listen_http_addr,
    httpApi({
      id: config.id,
      manager,
      reader,
      receivers,
      compactor,
      waitLsnTimeoutMs,
      signal,
      authenticator,
    }),
  );
  const broker = new BrokerClient(config.broker_endpoint, token);
  broker.subscribeAll((info) => receivers.onInfo(info));
  const ticking = setInterval(() => {
    manager.tick();
    compactor.tick();
    void startOver.tick();
  }, TICK_MS);
  log.info("pageserver {id} listens on {pg} and {http}", {
    id: config.id,
    pg: `${pageService.hostname}:${pageService.port}`,
    http: config.listen_http_addr,
  });

  return {
    async stop() {
      clearInterval(ticking);
      stopping.abort();
      broker.close();
      await Promise.all([pageService.close(), http.shutdown(), receivers.stop()]);
      await manager.shutdown();
    },
    quiet() {
      reader.forgetLast();
      manager.forgetScans();
    },
    rest() {
      reader.forgetPages();
      manager.forgetPages();
    },
  };
}

await runDaemon({ name: "pageserver", config: pageserverConfig, start });
