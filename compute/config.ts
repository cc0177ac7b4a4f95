/**
 * Settings of a compute host: `compute.toml` in its directory.
 *
 *   listen_http_addr = "127.0.0.1:3080"
 *   launcher_path = "/var/cache/neon/compute-.../neon-launch"        the only program it may start
 *   library_path = "/var/cache/neon/compute-.../liblazyfiles.so"     preloaded into Postgres
 *   log_level = "info"
 *
 * An unknown key is refused: it is more often a typing error than a newer file.
 */
import { parse } from "smol-toml";
import { z } from "zod";
import { BadRequest } from "../libs/utils/errors.ts";

/** Name of the file in the host's directory. */
export const CONFIG_FILE_NAME = "compute.toml";

const configSchema = z.strictObject({
  listen_http_addr: z.string().regex(/^[^:\s]+:\d{1,5}$/, "expected the form host:port")
    .default("127.0.0.1:3080"),
  launcher_path: z.string(),
  library_path: z.string(),
  log_level: z.enum(["debug", "info", "warning", "error"]).default("info"),
});

/** A checked configuration. */
export type ComputeConfig = z.infer<typeof configSchema>;

/** Parses the text of a configuration file; `path` is for messages. Throws BadRequest. */
export function parseConfig(text: string, path: string): ComputeConfig {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (thrown) {
    throw new BadRequest(`Cannot read "${path}": ${(thrown as Error).message}`);
  }
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    throw new BadRequest(`Cannot use "${path}": ${z.prettifyError(result.error)}`);
  }
  return result.data;
}
