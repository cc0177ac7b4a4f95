/**
 * What the HTTP APIs of all daemons have in common: JSON in and out, `GET /v1/status`, Prometheus'
 * `GET /metrics`, and errors as `{"msg": "..."}` with the status of their class
 * (libs/utils/errors.ts): 400 BadRequest, 401 Unauthorized, 403 Forbidden, 404 NotFound,
 * 409 Conflict, 503 Unavailable, 504 TimedOut, anything else 500. They listen on loopback by
 * default, and where authentication is on they want a bearer token (http_guard.ts).
 */
import { type Context, Hono } from "hono";
import type { z } from "zod";
import { metricsText } from "../metrics/registry.ts";
import { BadRequest, httpStatusOf, messageOf } from "../utils/errors.ts";
import type { Log } from "../utils/log.ts";
import { issuesIn } from "./config_file.ts";
import { COMMON_RULES, guard, type Protection } from "./http_guard.ts";

/** An API that has no routes of its own yet; `status` is what /v1/status answers. */
export function newHttpApi(
  log: Log,
  status: Record<string, number>,
  { rules, authenticator }: Protection,
): Hono {
  const app = new Hono();
  if (authenticator !== undefined) app.use(guard({ ...COMMON_RULES, ...rules }, authenticator));
  app.onError((thrown, c) => {
    const code = httpStatusOf(thrown);
    if (code === 500) {
      const { method, path } = c.req;
      log.error("{method} {path}: {why}", { method, path, why: thrown.stack ?? thrown.message });
    }
    if (code === 401) c.header("www-authenticate", "Bearer");
    return c.json({ msg: messageOf(thrown) }, code);
  });
  app.notFound((c) => c.json({ msg: `Cannot find ${c.req.method} ${c.req.path}` }, 404));
  app.get("/v1/status", (c) => c.json(status));
  app.get("/metrics", async (c) => {
    const { body, contentType } = await metricsText();
    return c.body(body, 200, { "content-type": contentType });
  });
  app.post("/v1/reload_auth_validation_keys", async (c) => {
    if (authenticator === undefined) {
      throw new BadRequest("Cannot reload keys: this server asks for no tokens");
    }
    return c.json({ keys: await authenticator.reload() });
  });
  return app;
}

/** The request's body, checked. No body counts as `{}`. Throws BadRequest saying what is wrong. */
export async function readJson<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  let json: unknown;
  try {
    json = JSON.parse(await c.req.text() || "{}");
  } catch {
    throw new BadRequest("Cannot read the request: its body is not JSON");
  }
  const { success, data, error } = schema.safeParse(json);
  if (success) return data;
  throw new BadRequest(`Cannot use the request: ${issuesIn(error)}`);
}
