/** The safekeeper's configuration, `DIR/safekeeper.toml`. */
import { parse } from "smol-toml";
import { z } from "zod";

const address = z.string().regex(/^[^\s:]+:\d+$/, "expected host:port");

const SafekeeperConfig = z.object({
  /** Distinguishes the safekeepers of a timeline; never changes for a directory. */
  id: z.int().min(1),
  /** WAL service, host:port. */
  listen_pg_addr: address.default("127.0.0.1:5454"),
  /** HTTP API, host:port. */
  listen_http_addr: address.default("127.0.0.1:7676"),
  /** The broker, http://host:port; without one nothing is published. */
  broker_endpoint: z.string().optional(),
  log_level: z.enum(["debug", "info", "warning", "error"]).default("info"),
});

/** Parsed configuration. */
export type SafekeeperConfig = z.infer<typeof SafekeeperConfig>;

/** Reads the file. Throws an error that names it and what is wrong. */
export function readConfig(path: string): SafekeeperConfig {
  const parsed = SafekeeperConfig.safeParse(parse(Deno.readTextFileSync(path)));
  if (parsed.success) return parsed.data;
  throw new SyntaxError(`Cannot use "${path}": ${z.prettifyError(parsed.error)}`);
}

/** The two parts of host:port. */
export function splitAddress(text: string): { hostname: string; port: number } {
  const colon = text.lastIndexOf(":");
  return { hostname: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
}
