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
 * Every setting but `id` has a default. An unknown key is refused: it is more often a typing error
 * than a newer file.
 */
import { parse } from "smol-toml";
import { z } from "zod";
import { BadRequest } from "../libs/utils/errors.ts";

/** Name of the file in the pageserver's directory. */
export const CONFIG_FILE_NAME = "pageserver.toml";

const address = z.string().regex(/^[^:\s]+:\d{1,5}$/, "expected the form host:port");

const configSchema = z.strictObject({
  id: z.int().min(1),
  listen_pg_addr: address.default("127.0.0.1:64000"),
  listen_http_addr: address.default("127.0.0.1:9898"),
  broker_endpoint: z.string().default("http://127.0.0.1:50051"),
  /** Longest wait of a read for an LSN that has not arrived. */
  wait_lsn_timeout_ms: z.int().min(1).default(60_000),
  /** Reconstructed pages kept in memory. */
  page_cache_mib: z.int().min(1).max(65536).default(64),
  log_level: z.enum(["debug", "info", "warning", "error"]).default("info"),
});

/** A checked configuration. */
export type PageserverConfig = z.infer<typeof configSchema>;

/** Parses the text of a configuration file; `path` is for messages. Throws BadRequest. */
export function parseConfig(text: string, path: string): PageserverConfig {
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

/** Splits "host:port". */
export function splitAddress(text: string): { hostname: string; port: number } {
  const colon = text.lastIndexOf(":");
  return { hostname: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
}
