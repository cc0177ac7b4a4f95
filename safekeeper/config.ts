/**
 * Settings of a safekeeper: `safekeeper.toml` in its directory.
 *
 *   id = 1
 *   listen_pg_addr = "127.0.0.1:5454"
 *   listen_http_addr = "127.0.0.1:7676"
 *   broker_endpoint = "http://127.0.0.1:50051"
 *   log_level = "info"
 */
import { z } from "zod";
import { addressSetting, logLevelSetting } from "../libs/daemon/config_file.ts";

/** The settings. */
export const safekeeperConfig = z.strictObject({
  /** Distinguishes the safekeepers of a timeline; never changes for a directory. */
  id: z.int().min(1),
  /** WAL service, host:port. */
  listen_pg_addr: addressSetting.default("127.0.0.1:5454"),
  /** HTTP API, host:port. */
  listen_http_addr: addressSetting.default("127.0.0.1:7676"),
  /** Without one nothing is published. */
  broker_endpoint: z.string().optional(),
  log_level: logLevelSetting,
});

/** Checked settings. */
export type SafekeeperConfig = z.infer<typeof safekeeperConfig>;
