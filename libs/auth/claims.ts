/**
 * The claims of a token: which are read, and when they are taken.
 *
 *     {"scope": "tenant", "tenant_id": "9ef8..."}
 *     {"scope": "tenantendpoint", "tenant_id": "9ef8...", "endpoint_id": "main"}
 *     {"scope": "pageserverapi"}    {"scope": "safekeeperdata"}
 *     {"scope": "compute_ctl:admin", "aud": ["compute"]}    {"compute_id": "main"}
 *
 * `exp` and `nbf` (seconds since 1970) hold where they are present, and so does `aud`, the servers
 * that a token is for. Other claims mean nothing here.
 */
import { z } from "zod";
import { Unauthorized } from "../utils/errors.ts";
import { parseTenantId } from "../utils/id.ts";
import { type Claims, SCOPES, type Server } from "./access.ts";

const claimsSchema = z.object({
  scope: z.enum(SCOPES).nullish(),
  tenant_id: z.string().regex(/^[0-9a-f]{32}$/i).nullish(),
  endpoint_id: z.string().min(1).nullish(),
  compute_id: z.string().min(1).nullish(),
  aud: z.union([z.string(), z.array(z.string())]).nullish(),
  exp: z.number().nullish(),
  nbf: z.number().nullish(),
});

type ClaimsJson = z.infer<typeof claimsSchema>;

/**
 * What a token with these claims says to `server` at `nowSeconds`. Throws Unauthorized for one that
 * says nothing that is understood, is not valid now, or is not for this server.
 */
export function readClaims(json: unknown, server: Server, nowSeconds: number): Claims {
  const { success, data } = claimsSchema.safeParse(json);
  if (!success) throw new Unauthorized("Cannot authenticate: the token's claims are not known");
  if (typeof data.exp === "number" && nowSeconds >= data.exp) {
    throw new Unauthorized("Cannot authenticate: the token has expired");
  }
  if (typeof data.nbf === "number" && nowSeconds < data.nbf) {
    throw new Unauthorized("Cannot authenticate: the token is not valid yet");
  }
  checkAudience(data, server);
  return claimsOf(data);
}

/** A token that names no audience is for all; that of a compute host's manager has to name one. */
function checkAudience({ aud, scope }: ClaimsJson, server: Server): void {
  const isGiven = aud !== null && aud !== undefined;
  if (!isGiven && scope !== "compute_ctl:admin") return;
  if (isGiven && (aud === server || (Array.isArray(aud) && aud.includes(server)))) return;
  throw new Unauthorized("Cannot authenticate: the token is for another audience");
}

function claimsOf({ scope, tenant_id, endpoint_id, compute_id }: ClaimsJson): Claims {
  switch (scope) {
    case "tenant":
      if (tenant_id) return { scope, tenantId: parseTenantId(tenant_id) };
      break;
    case "tenantendpoint":
      if (tenant_id && endpoint_id) {
        return { scope, tenantId: parseTenantId(tenant_id), endpointId: endpoint_id };
      }
      break;
    case "pageserverapi":
    case "safekeeperdata":
    case "compute_ctl:admin":
      return { scope };
    default:
      if (compute_id) return { computeId: compute_id };
  }
  throw new Unauthorized("Cannot authenticate: the token does not say what it opens");
}
