/**
 * The safekeeper daemon.
 *
 *   safekeeper/main.ts -D DIR      DIR/safekeeper.toml: id, listen_pg_addr, listen_http_addr,
 *                                  broker_endpoint, log_level
 *
 * SIGTERM and SIGINT: everything is made durable, then it ends. SIGQUIT: it ends at once, which
 * loses nothing that was acknowledged. DIR/safekeeper.pid is locked while it lives.
 */
import { messageOf } from "../libs/utils/errors.ts";
import { configureLogging, logger } from "../libs/utils/log.ts";
import { acquirePidFile } from "../libs/utils/pid_file.ts";
import { readConfig } from "./config.ts";
import { startSafekeeper } from "./safekeeper.ts";

async function main(): Promise<void> {
  const directory = Deno.args[1];
  if (Deno.args[0] !== "-D" || directory === undefined) {
    console.error("usage: safekeeper/main.ts -D DIR");
    Deno.exit(2);
  }
  const pidFile = acquirePidFile(`${directory}/safekeeper.pid`);
  const config = readConfig(`${directory}/safekeeper.toml`);
  configureLogging(config.log_level);
  const log = logger("safekeeper");
  const broker = config.broker_endpoint === undefined
    ? undefined
    : new (await import("../broker/client.ts")).BrokerClient(config.broker_endpoint);
  const safekeeper = startSafekeeper(directory, config, broker ?? { publish() {} });
  log.info("safekeeper {id} serves WAL at {pg}, HTTP at {http}", {
    id: config.id,
    pg: safekeeper.pgAddress,
    http: safekeeper.httpAddress,
  });

  const stop = async () => {
    log.info("stopping");
    try {
      await safekeeper.close();
      broker?.close();
      pidFile.release();
    } catch (thrown) {
      log.error("stopping failed: {message}", { message: messageOf(thrown) });
      Deno.exit(1);
    }
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", stop);
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGQUIT", () => Deno.exit(0));
}

if (import.meta.main) {
  try {
    await main();
  } catch (thrown) {
    console.error(`error: ${messageOf(thrown)}`);
    Deno.exit(1);
  }
}
