/**
 * Which token each route of an HTTP API wants. Every API names all its routes; one that it does not
 * name is opened by nothing but the token for the whole server.
 *
 *     { "GET /v1/status": "open", "GET /v1/tenant": "server", "GET /v1/tenant/:tenant": "tenant" }
 */
import type { Context, MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { Needed } from "../auth/access.ts";
import type { Authenticator } from "../auth/authenticator.ts";
import { isId, parseTenantId } from "../utils/id.ts";

/**
 * `open`: nobody is asked. `server`: a token for all of the server. `tenant`, `endpoint`: also one
 * of the tenant or the endpoint that the path names as `:tenant` or `:name`.
 */
type RouteRule = "open" | "server" | "tenant" | "endpoint";

/** Rules by method and path, as the router has it. */
export type RouteRules = Readonly<Record<string, RouteRule>>;

/** What an API is protected with. */
export interface Protection {
  readonly rules: RouteRules;
  /** Undefined where everybody on the network is trusted. */
  readonly authenticator: Authenticator | undefined;
}

/** The routes that all daemons have. */
export const COMMON_RULES: RouteRules = {
  "GET /v1/status": "open",
  "GET /metrics": "open",
  "POST /v1/reload_auth_validation_keys": "server",
};

/** Lets only requests pass that show what their route wants. Throws Unauthorized, Forbidden. */
export function guard(rules: RouteRules, authenticator: Authenticator): MiddlewareHandler {
  return async (c, next) => {
    const needed = neededOf(rules, c);
    if (needed !== undefined) await authenticator.check(c.req.header("authorization"), needed);
    await next();
  };
}

/** Undefined for an open route. */
function neededOf(rules: RouteRules, c: Context): Needed | undefined {
  // The first one answers; HEAD is answered by the route of GET
  const route = matchedRoutes(c).find(({ method }) => method !== "ALL");
  if (route === undefined) return { of: "server" };
  const key = `${route.method} ${route.path}`;
  const rule = Object.hasOwn(rules, key) ? rules[key] : undefined;
  if (rule === "open") return undefined;
  if (rule === "tenant") {
    const text = segmentAt(c, route.path, ":tenant");
    // What is no id is nobody's: its route will say so
    return isId(text) ? { of: "tenant", tenantId: parseTenantId(text) } : { of: "server" };
  }
  if (rule === "endpoint") return { of: "endpoint", name: segmentAt(c, route.path, ":name") };
  return { of: "server" };
}

/** The part of the request's path where the route's path has `placeholder`. */
function segmentAt(c: Context, path: string, placeholder: string): string {
  return c.req.path.split("/")[path.split("/").indexOf(placeholder)]!;
}
