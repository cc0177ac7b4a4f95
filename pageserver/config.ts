/**
 * Settings of a pageserver: `pageserver.toml` in its directory.
 *
 *   id = 1
 *   listen_pg_addr = "127.0.0.1:64000"
 *   listen_http_addr = "127.0.0.1:9898"
 *   broker_endpoint = "http://127.0.0.1:50051"
 *   wait_lsn_timeout_ms = 60000
 *   page_cache_mib = 64
 *   log_level = "info"
 *
 * Every setting but `id` has a default.
 */
import { z } from "zod";
import { addressSetting, logLevelSetting } from "../libs/daemon/config_file.ts";

/** The settings. */
export const pageserverConfig = z.strictObject({
  id: z.int().min(1),
  listen_pg_addr: addressSetting.default("127.0.0.1:64000"),
  listen_http_addr: addressSetting.default("127.0.0.1:9898"),
  broker_endpoint: z.string().default("http://127.0.0.1:50051"),
  /** Longest wait of a read for an LSN that has not arrived. */
  wait_lsn_timeout_ms: z.int().min(1).default(60_000),
  /** Reconstructed pages kept in memory. */
  page_cache_mib: z.int().min(1).max(65536).default(64),
  log_level: logLevelSetting,
});
