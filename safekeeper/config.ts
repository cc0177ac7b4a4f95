/**
 * Settings of a safekeeper: `safekeeper.toml` in its directory.
 *
 *   id = 1
 *   listen_pg_addr = "127.0.0.1:5454"
 *   listen_http_addr = "127.0.0.1:7676"
 *   broker_endpoint = "http://127.0.0.1:50051"
 *   remote_storage = { local_path = "/srv/neon-wal" }
 *   partial_backup_timeout_ms = 900000
 *   enable_offload = false
 *   eviction_min_resident_ms = 900000
 *   wal_backup_parallel_jobs = 2
 *   auth_validation_public_key_path = "/srv/neon/auth_public_key.pem"
 *   auth_token_path = "/srv/neon/safekeepers/sk1/peer_jwt_token"
 *   log_level = "info"
 *
 * Without `remote_storage` WAL is kept until the pageserver has it durably, and the settings
 * that follow, up to `wal_backup_parallel_jobs`, mean nothing. Without those of
 * authentication nobody is asked for a token, and none is shown to others.
 */
import { z } from "zod";
import { addressSetting, logLevelSetting } from "../libs/daemon/config_file.ts";
import { remoteStorageConfig } from "../libs/remote_storage/config.ts";

const MINUTE_MS = 60_000;

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
  /** Where WAL goes in the end. All safekeepers of a timeline have the same one. */
  remote_storage: remoteStorageConfig.optional(),
  /** How long the unfinished segment may differ from what of it is in remote storage. */
  partial_backup_timeout_ms: z.int().min(0).default(15 * MINUTE_MS),
  /** Whether the WAL of idle timelines is taken off the disk. */
  enable_offload: z.boolean().default(false),
  /** How long a timeline must be idle for that. */
  eviction_min_resident_ms: z.int().min(0).default(15 * MINUTE_MS),
  /** Segments of one timeline uploaded at once: more are faster, but commits then wait longer. */
  wal_backup_parallel_jobs: z.int().min(1).max(100).default(2),
  /** A file or a directory of public keys. */
  auth_validation_public_key_path: z.string().optional(),
  /** A file with the token for other safekeepers and the broker. */
  auth_token_path: z.string().optional(),
  log_level: logLevelSetting,
});

/** Checked settings. */
export type SafekeeperConfig = z.infer<typeof safekeeperConfig>;
