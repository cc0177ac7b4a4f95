/**
 * Who may do what: the scopes of tokens, what a request needs, and the one function that compares
 * them. Pure.
 *
 * | scope               | opens                                                                  |
 * |---------------------|------------------------------------------------------------------------|
 * | `tenant`            | one tenant at pageservers and safekeepers: its data and its management |
 * | `tenantendpoint`    | the data of one tenant there, nothing to manage: what an endpoint has  |
 * | `pageserverapi`     | everything at a pageserver                                             |
 * | `safekeeperdata`    | everything at a safekeeper and at the broker                           |
 * | `compute_ctl:admin` | everything at a compute host                                           |
 * | none, `compute_id`  | one endpoint at a compute host                                         |
 */
import { Forbidden } from "../utils/errors.ts";
import type { TenantId } from "../utils/id.ts";

/** All scopes. */
export const SCOPES = [
  "tenant",
  "tenantendpoint",
  "pageserverapi",
  "safekeeperdata",
  "compute_ctl:admin",
] as const;

/** What kind of token it is. */
type Scope = typeof SCOPES[number];

/** Who asks for tokens; also the audience of a token that names one. */
export type Server = "broker" | "safekeeper" | "pageserver" | "compute";

/** What a token says, checked. */
export type Claims =
  | { readonly scope: "tenant"; readonly tenantId: TenantId }
  | { readonly scope: "tenantendpoint"; readonly tenantId: TenantId; readonly endpointId: string }
  | { readonly scope: "pageserverapi" | "safekeeperdata" | "compute_ctl:admin" }
  | { readonly scope?: undefined; readonly computeId: string };

/**
 * What a request touches: nothing but the server as a whole; what a tenant has there; only the
 * data of a tenant; or an endpoint.
 */
export type Needed =
  | { readonly of: "server" }
  | { readonly of: "tenant" | "tenant data"; readonly tenantId: TenantId }
  | { readonly of: "endpoint"; readonly name: string };

/** The scope that opens everything at a server. */
const WHOLE_SERVER: Readonly<Record<Server, Scope>> = {
  broker: "safekeeperdata",
  safekeeper: "safekeeperdata",
  pageserver: "pageserverapi",
  compute: "compute_ctl:admin",
};

/** Throws Forbidden unless the token opens what is needed at this server. */
export function authorize(server: Server, claims: Claims, needed: Needed): void {
  const { scope } = claims;
  if (scope === WHOLE_SERVER[server]) return;
  const isStorage = server === "pageserver" || server === "safekeeper";
  if (scope === "tenant" || scope === "tenantendpoint") {
    const isOpen = isStorage &&
      (needed.of === "tenant data" || (needed.of === "tenant" && scope === "tenant"));
    if (isOpen && claims.tenantId === needed.tenantId) return;
    if (isOpen) throw new Forbidden("Cannot allow this: the token is of another tenant");
  }
  if (scope === undefined && server === "compute" && needed.of === "endpoint") {
    if (claims.computeId === needed.name) return;
    throw new Forbidden("Cannot allow this: the token is of another endpoint");
  }
  const what = scope === undefined ? "that names an endpoint" : `of scope "${scope}"`;
  throw new Forbidden(`Cannot allow this: a token ${what} does not open it`);
}
