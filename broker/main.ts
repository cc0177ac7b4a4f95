/**
 * The storage broker: safekeepers publish where their timelines stand, pageservers subscribe. It
 * keeps nothing and may be restarted at any time.
 *
 *   broker/main.ts -D DIR      DIR/storage_broker.toml: listen_addr, http_listen_addr, log_level,
 *                              auth_validation_public_key_path
 *
 * gRPC and HTTP have a port each: grpc-js does not speak HTTP/1 on its own.
 */
import { z } from "zod";
import { addressSetting, logLevelSetting } from "../libs/daemon/config_file.ts";
import { openAuthenticator } from "../libs/daemon/authentication.ts";
import { runDaemon } from "../libs/daemon/daemon.ts";
import { newHttpApi } from "../libs/daemon/http_api.ts";
import type { RouteRules } from "../libs/daemon/http_guard.ts";
import { serveHttp } from "../libs/daemon/listen.ts";
import { gauge } from "../libs/metrics/registry.ts";
import { logger } from "../libs/utils/log.ts";
import { serveBroker } from "./server.ts";

const log = logger("broker");

const brokerConfig = z.strictObject({
  /** gRPC, host:port. */
  listen_addr: addressSetting.default("127.0.0.1:50051"),
  /** Status and metrics, host:port. */
  http_listen_addr: addressSetting.default("127.0.0.1:50052"),
  log_level: logLevelSetting,
  /** A file or a directory of public keys; without one nobody is asked for a token. */
  auth_validation_public_key_path: z.string().optional(),
});

await runDaemon({
  name: "storage_broker",
  config: brokerConfig,
  async start(_directory, config) {
    const keyPath = config.auth_validation_public_key_path;
    const authenticator = await openAuthenticator("broker", keyPath);
    const broker = await serveBroker(config.listen_addr, authenticator);
    const { registry } = broker;
    gauge("storage_broker_subscribers", "Open subscriptions", [], (made) => {
      made.set(registry.size);
    });
    const missed = "Messages that slow subscribers missed";
    gauge("storage_broker_dropped_messages", missed, [], (made) => made.set(registry.dropped));
    const rules: RouteRules = { "GET /status": "open" };
    const api = newHttpApi(log, {}, { rules, authenticator });
    api.get("/status", (c) => c.json({}));
    const http = serveHttp(config.http_listen_addr, api);
    log.info("listening for gRPC at {grpc}, for HTTP at {http}", {
      grpc: config.listen_addr,
      http: config.http_listen_addr,
    });
    return {
      async stop() {
        broker.close();
        await http.shutdown();
      },
    };
  },
});
