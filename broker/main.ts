/**
 * The storage broker: safekeepers publish where their timelines stand, pageservers subscribe. It
 * keeps nothing and may be restarted at any time.
 *
 *   broker/main.ts -D DIR      DIR/storage_broker.toml: listen_addr, http_listen_addr
 *
 * gRPC and HTTP have a port each: grpc-js does not speak HTTP/1 on its own.
 */
import { Hono } from "hono";
import { parse } from "smol-toml";
import { z } from "zod";
import { gauge, metricsText } from "../libs/metrics/registry.ts";
import { configureLogging, logger } from "../libs/utils/log.ts";
import { acquirePidFile } from "../libs/utils/pid_file.ts";
import { serveBroker } from "./server.ts";

const Config = z.object({
  /** gRPC, host:port. */
  listen_addr: z.string().default("127.0.0.1:50051"),
  /** Status and metrics, host:port. */
  http_listen_addr: z.string().default("127.0.0.1:50052"),
});

async function main(): Promise<void> {
  if (Deno.args[0] !== "-D" || Deno.args[1] === undefined) {
    console.error("usage: broker/main.ts -D DIR");
    Deno.exit(2);
  }
  const directory = Deno.args[1];
  configureLogging();
  const log = logger("broker");
  const pidFile = acquirePidFile(`${directory}/storage_broker.pid`);
  const config = Config.parse(parse(Deno.readTextFileSync(`${directory}/storage_broker.toml`)));

  const broker = await serveBroker(config.listen_addr);
  gauge("storage_broker_subscribers", "Open subscriptions", [], (made) => {
    made.set(broker.registry.size);
  });
  gauge("storage_broker_dropped_messages", "Messages that slow subscribers missed", [], (made) => {
    made.set(broker.registry.dropped);
  });
  const [hostname, port] = config.http_listen_addr.split(":");
  const http = Deno.serve(
    { hostname: hostname!, port: Number(port), onListen: () => {} },
    statusApi().fetch,
  );
  log.info("listening for gRPC at {grpc}, for HTTP at {http}", {
    grpc: config.listen_addr,
    http: config.http_listen_addr,
  });

  const stop = async () => {
    broker.close();
    await http.shutdown();
    pidFile.release();
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGQUIT", stop);
}

function statusApi(): Hono {
  const api = new Hono();
  api.get("/status", (c) => c.json({}));
  api.get("/v1/status", (c) => c.json({}));
  api.get("/metrics", async (c) => {
    const { body, contentType } = await metricsText();
    return c.text(body, 200, { "content-type": contentType });
  });
  return api;
}

if (import.meta.main) await main();
