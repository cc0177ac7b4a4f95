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
import { describeOsError } from "../utils/os_errors.ts";
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
  app.onError((thrown, c) => {
    const code = httpStatusOf(thrown);
    if (code === 500) {
      const { method, path } = c.req;
      log.error("{method} {path}: {why}", { method, path, why: thrown.stack ?? thrown.message });
    }
    if (code === 401) c.header("www-authenticate", "Bearer");
    return c.json({ msg: describeOsError(thrown) ?? messageOf(thrown) }, code);
  });
  app.use(async (c, next) => {
    await next();
    await dropRest(c.req.raw);
  });
  if (authenticator !== undefined) app.use(guard({ ...COMMON_RULES, ...rules }, authenticator));
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

/** Longest body with JSON in it; the longest that makes sense has some ten kilobytes. */
const JSON_BYTES_MAX = 1024 * 1024;

/** Deepest nesting: what recurses over a value must not run out of stack. */
const JSON_DEPTH_MAX = 100;

/**
 * The request's body, checked. No body counts as `{}`. Throws BadRequest saying what is wrong. Of a
 * body that is too long no more than the limit is read.
 */
export async function readJson<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  const text = await readText(c);
  checkDepth(text);
  let json: unknown;
  try {
    json = JSON.parse(text || "{}");
  } catch {
    throw new BadRequest("Cannot read the request: its body is not JSON");
  }
  const { success, data, error } = schema.safeParse(json);
  if (success) return data;
  throw new BadRequest(`Cannot use the request: ${issuesIn(error)}`);
}

/** Cancels a body that nobody has read: its connection would wait for that. */
async function dropRest(request: Request): Promise<void> {
  try {
    const { body } = request;
    if (body !== null && !body.locked) await body.cancel();
  } catch {
    // the client has left in the middle of it
  }
}

/** The request's body in pieces. Throws BadRequest if the client leaves before its end. */
export async function* requestBody(c: Context): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    yield* c.req.raw.body ?? [];
  } catch (thrown) {
    throw new BadRequest(`Cannot read the request's body: ${messageOf(thrown)}`);
  }
}

async function readText(c: Context): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const piece of requestBody(c)) {
    bytes += piece.length;
    if (bytes > JSON_BYTES_MAX) {
      throw new BadRequest(
        `Cannot read the request: its body has more than ${JSON_BYTES_MAX} bytes`,
      );
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

function checkDepth(text: string): void {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (inString) {
      if (character === "\\") i++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "[" || character === "{") depth++;
    else if (character === "]" || character === "}") depth--;
    if (depth > JSON_DEPTH_MAX) {
      throw new BadRequest(
        `Cannot read the request: its body is nested more than ${JSON_DEPTH_MAX} deep`,
      );
    }
  }
}
