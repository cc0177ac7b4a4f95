/**
 * The safekeeper daemon: `main.ts -D DIR`, settings as in config.ts.
 *
 * SIGTERM and SIGINT: everything is made durable, then it ends. SIGQUIT: it ends at once, which
 * loses nothing that was acknowledged.
 */
import { openAuthenticator } from "../libs/daemon/authentication.ts";
import { runDaemon } from "../libs/daemon/daemon.ts";
import { logger } from "../libs/utils/log.ts";
import { tokenFile } from "../libs/utils/token_source.ts";
import { safekeeperConfig } from "./config.ts";
import { startSafekeeper } from "./safekeeper.ts";

await runDaemon({
  name: "safekeeper",
  config: safekeeperConfig,
  async start(directory, config) {
    const token = tokenFile(config.auth_token_path);
    const keyPath = config.auth_validation_public_key_path;
    const authenticator = await openAuthenticator("safekeeper", keyPath);
    const broker = config.broker_endpoint === undefined
      ? undefined
      : new (await import("../broker/client.ts")).BrokerClient(config.broker_endpoint, token);
    const { remote_storage: remote } = config;
    const storage = remote === undefined
      ? undefined
      : await (await import("../libs/remote_storage/config.ts")).openRemoteStorage(remote);
    const safekeeper = startSafekeeper(directory, config, broker ?? { publish() {} }, {
      storage,
      authenticator,
      token,
    });
    broker?.subscribeAll((info) => safekeeper.heard(info));
    logger("safekeeper").info("safekeeper {id} serves WAL at {pg}, HTTP at {http}", {
      id: config.id,
      pg: safekeeper.pgAddress,
      http: safekeeper.httpAddress,
    });
    return {
      async stop() {
        await safekeeper.close();
        broker?.close();
      },
    };
  },
});
