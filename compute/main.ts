/**
 * The compute host: one daemon that owns every endpoint of a machine.
 *
 *   deno run [permissions] compute/main.ts -D DIR
 *
 * DIR holds compute.toml (config.ts), compute.pid while it runs, and the endpoints. SIGTERM stops
 * the endpoints fast, SIGQUIT immediately, then the host ends. When it is killed instead, Postgres
 * lives on with its commits waiting, and the next host takes it over.
 *
 * Permissions it needs: read and write of DIR; read of the public keys, where it has some; run of
 * exactly the launcher; net of its own HTTP address, of the pageserver's page service, of the
 * safekeepers' WAL services and of unix:DIR/postgres.sock and unix:DIR/wal.sock; ffi of the CRC-32C add-on.
 */
import { join } from "node:path";
import { openAuthenticator } from "../libs/daemon/authentication.ts";
import { runDaemon } from "../libs/daemon/daemon.ts";
import { serveHttp } from "../libs/daemon/listen.ts";
import { logger } from "../libs/utils/log.ts";
import { ComputeHost } from "./compute_host.ts";
import { computeConfig } from "./config.ts";
import { httpApi } from "./http_api.ts";
import { watchHost } from "./metrics.ts";
import { Launcher } from "./postgres_process.ts";
import { PrivateSocket } from "./private_socket.ts";
import { ReadyDirectories } from "./ready_directories.ts";
import { ReadyFiles } from "./ready_files.ts";
import { StartPages } from "./start_pages.ts";
import { WalChannels } from "./wal_channels.ts";

await runDaemon({
  name: "compute",
  config: computeConfig,
  async start(directory, config, pidPath) {
    const keyPath = config.auth_validation_public_key_path;
    const authenticator = await openAuthenticator("compute", keyPath);
    const launcher = new Launcher(config.launcher_path, config.library_path);
    const walChannels = new WalChannels(join(directory, "wal.sock"));
    const services = {
      launcher,
      sockets: new PrivateSocket(join(directory, "postgres.sock")),
      walChannels,
      bootId: await launcher.bootId(),
      ready: new ReadyFiles(join(directory, "ready")),
      readyDirectories: new ReadyDirectories(join(directory, "ready_data")),
      startPages: new StartPages(),
    };
    services.ready.fill();
    const endpoints = join(directory, "endpoints");
    const host = new ComputeHost(services, endpoints);
    await host.adoptAll();
    const stopGuard = launcher.guard(pidPath, endpoints);
    watchHost(host);
    const server = serveHttp(config.listen_http_addr, httpApi(host, authenticator));
    logger("compute").info("listening on {address}", { address: config.listen_http_addr });
    launcher.makeSpare();
    const stop = async (mode: "fast" | "immediate") => {
      await host.stopAll(mode);
      await server.shutdown();
      walChannels.close();
      stopGuard();
    };
    return { stop: () => stop("fast"), stopAtOnce: () => stop("immediate") };
  },
});
