/**
 * The control plane's keys and the tokens that it signs with them, where `neon init --auth` was
 * asked for. Nothing of this is loaded elsewhere.
 *
 *   .neon/auth_private_key.pem   signs; nobody but its owner may read it, and no daemon does
 *   .neon/auth_public_key.pem    verifies; may hold several keys, or be a directory of such files
 *
 * Who shows which token: commands one of their own, for a minute; the pageserver and the
 * safekeepers one that opens all safekeepers (0600 in their directory); the compute host those of
 * its endpoints, each for the data of one tenant.
 */
import { replaceFile } from "../../libs/utils/durable.ts";
import { BadRequest, messageOf } from "../../libs/utils/errors.ts";
import { HttpClient } from "../../libs/utils/http_client.ts";
import type { TenantId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { isAbsolute } from "../../libs/utils/paths.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import type { Config } from "./config.ts";
import { type Environment, repoPath } from "./environment.ts";

/** Names of the files that init makes, below `.neon`. */
const KEY_FILES = {
  private_key_path: "auth_private_key.pem",
  public_key_path: "auth_public_key.pem",
} as const;

/** How long a token of a command is good: it is made for one request. */
const COMMAND_TOKEN_SECONDS = 60;

/** Longest wait for a daemon that reads its keys. */
const RELOAD_MS_MAX = 5000;

/** The claims of a token, as they are written into it. */
export type TokenClaims = Readonly<Record<string, string | readonly string[] | number>>;

/** What opens everything at a role. */
export const WHOLE_ROLE = {
  pageserver: { scope: "pageserverapi" },
  safekeeper: { scope: "safekeeperdata" },
  compute: { scope: "compute_ctl:admin", aud: ["compute"] },
} as const satisfies Record<string, TokenClaims>;

function absolute(env: Environment, path: string): string {
  return isAbsolute(path) ? path : repoPath(env, path);
}

/** What daemons verify tokens with; undefined where they want none. */
export function publicKeyPath(env: Environment): string | undefined {
  const { public_key_path } = env.config;
  return public_key_path === undefined ? undefined : absolute(env, public_key_path);
}

/** A token with these claims; undefined where daemons want none. Throws BadRequest without a key. */
export async function signedToken(
  env: Environment,
  claims: TokenClaims,
): Promise<string | undefined> {
  const { private_key_path } = env.config;
  if (private_key_path === undefined) return undefined;
  const { signToken } = await import("../../libs/auth/jwt.ts");
  const { readPrivateKey } = await import("../../libs/auth/keys.ts");
  return await signToken(await readPrivateKey(absolute(env, private_key_path)), claims);
}

/** What a command shows: made anew for each request. */
export function commandToken(env: Environment, claims: TokenClaims): TokenSource | undefined {
  if (env.config.private_key_path === undefined) return undefined;
  return () => {
    const exp = Math.floor(Date.now() / 1000) + COMMAND_TOKEN_SECONDS;
    return signedToken(env, { ...claims, exp });
  };
}

/** What an endpoint shows to the pageserver and the safekeepers. It does not expire. */
export function endpointToken(
  env: Environment,
  tenant: TenantId,
  endpoint: string,
): Promise<string | undefined> {
  return signedToken(env, { scope: "tenantendpoint", tenant_id: tenant, endpoint_id: endpoint });
}

/** Writes a daemon's token where it reads it, unless it is there. */
export async function writeTokenFile(
  path: string,
  make: () => Promise<string | undefined>,
): Promise<void> {
  const token = await make();
  if (token === undefined || ifThere(() => Deno.readTextFileSync(path)) === `${token}\n`) return;
  replaceFile(path, new TextEncoder().encode(`${token}\n`), 0o600);
}

/** Has a daemon that runs read its public keys again: they may have been exchanged. */
export async function reloadKeys(
  env: Environment,
  daemon: { readonly name: string; readonly statusUrl: string },
  whole: TokenClaims,
): Promise<void> {
  const { host } = new URL(daemon.statusUrl);
  const client = new HttpClient(daemon.name, host, RELOAD_MS_MAX, commandToken(env, whole));
  try {
    await client.json("POST", "/v1/reload_auth_validation_keys");
  } catch (thrown) {
    throw new Error(
      `Cannot have ${daemon.name} read the public keys again: ${messageOf(thrown)}; ` +
        `"neon stop" and "neon start" start it anew`,
    );
  }
}

/** The names of new keys, for a configuration that names none. */
export function newKeyNames(config: Pick<Config, "private_key_path" | "public_key_path">) {
  if (config.private_key_path !== undefined || config.public_key_path !== undefined) return {};
  return KEY_FILES;
}

/** Makes the keys that are to be in a new `.neon`. */
export async function writeNewKeys(directory: string): Promise<void> {
  const { newKeyPair } = await import("../../libs/auth/keys.ts");
  const { privatePem, publicPem } = await newKeyPair();
  const write = (name: string, text: string, mode: number) =>
    replaceFile(`${directory}/${name}`, new TextEncoder().encode(text), mode);
  write(KEY_FILES.private_key_path, privatePem, 0o600);
  write(KEY_FILES.public_key_path, publicPem, 0o644);
}

/** Which tokens `neon endpoint generate-jwt` makes, and what they say for an endpoint. */
const FOR_ENDPOINT = {
  "compute_ctl:admin": () => WHOLE_ROLE.compute,
  pageserverapi: () => WHOLE_ROLE.pageserver,
  safekeeperdata: () => WHOLE_ROLE.safekeeper,
  tenant: ({ tenant_id }) => ({ scope: "tenant", tenant_id }),
  tenantendpoint: ({ tenant_id, endpoint_id }) => ({
    scope: "tenantendpoint",
    tenant_id,
    endpoint_id,
  }),
} as const satisfies Record<string, (of: EndpointOfToken) => TokenClaims>;

interface EndpointOfToken {
  readonly endpoint_id: string;
  readonly tenant_id: TenantId;
}

/** The scopes that can be asked for. */
export const GENERATED_SCOPES = Object.keys(FOR_ENDPOINT) as (keyof typeof FOR_ENDPOINT)[];

/**
 * A token for an endpoint: without a scope one that opens just it at the compute host. Throws
 * BadRequest where daemons want none.
 */
export async function generateToken(
  env: Environment,
  endpoint: EndpointOfToken,
  scope: keyof typeof FOR_ENDPOINT | undefined,
): Promise<string> {
  const claims = scope === undefined
    ? { compute_id: endpoint.endpoint_id }
    : FOR_ENDPOINT[scope](endpoint);
  const token = await signedToken(env, claims);
  if (token !== undefined) return token;
  throw new BadRequest(
    `Cannot make a token: the daemons of this local Neon want none; "neon init --auth" makes one ` +
      `whose daemons do`,
  );
}
