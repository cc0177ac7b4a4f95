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
 *   auth_validation_public_key_path = "/srv/neon/auth_public_key.pem"
 *   auth_token_path = "/srv/neon/pageserver_1/jwt_token"
 *
 * Every setting but `id` has a default, or may be left out: without the last two nobody is asked
 * for a token, and none is shown to others.
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
  /** A file or a directory of public keys. */
  auth_validation_public_key_path: z.string().optional(),
  /** A file with the token for safekeepers and the broker. */
  auth_token_path: z.string().optional(),
});
