/**
 * Settings of a compute host: `compute.toml` in its directory.
 *
 *   listen_http_addr = "127.0.0.1:3080"
 *   launcher_path = "/var/cache/neon/compute-.../neon-launch"        the only program it may start
 *   library_path = "/var/cache/neon/compute-.../liblazyfiles.so"     preloaded into Postgres,
 *                                                                     if that can be done here
 *   log_level = "info"
 *   auth_validation_public_key_path = "/srv/neon/auth_public_key.pem"    who asks shows a token
 */
import { z } from "zod";
import { addressSetting, logLevelSetting } from "../libs/daemon/config_file.ts";

/** The settings. */
export const computeConfig = z.strictObject({
  listen_http_addr: addressSetting.default("127.0.0.1:3080"),
  launcher_path: z.string(),
  library_path: z.string().optional(),
  log_level: logLevelSetting,
  /** A file or a directory of public keys. */
  auth_validation_public_key_path: z.string().optional(),
});
