/**
 * Settings of a daemon: a TOML file in its directory, checked by a schema. Every schema is strict:
 * an unknown key is more often a typing error than a newer file.
 */
import { parse } from "smol-toml";
import { z } from "zod";
import { BadRequest, messageOf } from "../utils/errors.ts";

/** A setting of the form host:port. */
export const addressSetting = z.string()
  .regex(/^[^:\s]+:\d{1,5}$/, "expected the form host:port");

/** The name or address of a machine. */
export const hostSetting = z.string().regex(/^[A-Za-z0-9._:-]{1,255}$/, "expected a host name");

/** How much is logged; every daemon has it. */
export const logLevelSetting = z.enum(["debug", "info", "warning", "error"]).default("info");

/** Reads and checks a file. Throws BadRequest that names it and says what is wrong. */
export function readConfigFile<T>(path: string, schema: z.ZodType<T>): T {
  let raw: unknown;
  try {
    raw = parse(Deno.readTextFileSync(path));
  } catch (thrown) {
    throw new BadRequest(`Cannot read "${path}": ${messageOf(thrown).split("\n")[0]}`);
  }
  const { success, data, error } = schema.safeParse(raw);
  if (success) return data;
  throw new BadRequest(`Cannot use "${path}": ${issuesIn(error)}`);
}

/** What a schema found wrong, in one line. */
export function issuesIn(error: z.ZodError): string {
  return z.prettifyError(error).replaceAll(/✖ /g, "").replaceAll(/\n\s*→ /g, " ")
    .replaceAll(/\s*\n\s*/g, "; ");
}
