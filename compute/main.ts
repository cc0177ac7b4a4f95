/**
 * The compute host: one daemon that owns every endpoint of a machine.
 *
 *   deno run [permissions] compute/main.ts -D DIR
 *
 * DIR holds compute.toml (config.ts), compute.pid while it runs, and the endpoints. SIGTERM stops
 * the endpoints fast, SIGQUIT immediately, then the host ends. When it is killed instead, Postgres
 * lives on with its commits waiting, and the next host takes it over.
 *
 * Permissions it needs: read and write of DIR; read of the launcher, the library and the Postgres
 * installations; run of exactly the launcher; net of its own HTTP address, of the pageserver and
 * the safekeepers, of the endpoints' ports on 127.0.0.1, and of unix:DIR/postgres.sock; ffi of the
 * CRC-32C add-on.
 */
import { join, resolve } from "node:path";
import { logger } from "../libs/utils/log.ts";
import { configureLogging } from "../libs/utils/log.ts";
import { acquirePidFile } from "../libs/utils/pid_file.ts";
import { ComputeHost } from "./compute_host.ts";
import { CONFIG_FILE_NAME, parseConfig } from "./config.ts";
import { httpApi } from "./http_api.ts";
import { watchHost } from "./metrics.ts";
import { Launcher } from "./postgres_process.ts";
import { PrivateSocket } from "./private_socket.ts";
import { ReadyFiles } from "./ready_files.ts";

const log = logger("compute", "main");

function directoryArgument(): string {
  const [flag, directory, ...rest] = Deno.args;
  if (flag !== "-D" || directory === undefined || rest.length > 0) {
    console.error("usage: compute/main.ts -D DIRECTORY");
    Deno.exit(2);
  }
  return resolve(directory);
}

async function main(): Promise<void> {
  const directory = directoryArgument();
  const configPath = join(directory, CONFIG_FILE_NAME);
  const config = parseConfig(Deno.readTextFileSync(configPath), configPath);
  configureLogging(config.log_level);
  const pidPath = join(directory, "compute.pid");
  const pidFile = acquirePidFile(pidPath);
  const launcher = new Launcher(config.launcher_path, config.library_path);
  const services = {
    launcher,
    sockets: new PrivateSocket(join(directory, "postgres.sock")),
    bootId: await launcher.bootId(),
    ready: new ReadyFiles(join(directory, "ready")),
  };
  services.ready.fill();
  const endpoints = join(directory, "endpoints");
  const host = new ComputeHost(services, endpoints);
  await host.adoptAll();
  const stopGuard = launcher.guard(pidPath, endpoints);
  watchHost(host);
  const colon = config.listen_http_addr.lastIndexOf(":");
  const server = Deno.serve({
    hostname: config.listen_http_addr.slice(0, colon),
    port: Number(config.listen_http_addr.slice(colon + 1)),
    onListen: ({ hostname, port }) =>
      log.info("listening on {hostname}:{port}", { hostname, port }),
  }, httpApi(host).fetch);
  let stopping = false;
  const stop = async (mode: "fast" | "immediate") => {
    if (stopping) return;
    stopping = true;
    log.info("stopping, {mode}", { mode });
    await host.stopAll(mode);
    await server.shutdown();
    stopGuard();
    pidFile.release();
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", () => stop("fast"));
  Deno.addSignalListener("SIGINT", () => stop("fast"));
  Deno.addSignalListener("SIGQUIT", () => stop("immediate"));
}

await main();
