/**
 * `.neon/endpoints/<id>/endpoint.json`: the definition of each endpoint, which outlives the
 * process.
 *
 *     {"endpoint_id": "main", "tenant_id": "9ef8...", "timeline_id": "de20...", "mode": "Primary",
 *      "pg_port": 55432, "pg_version": 17, "settings": {"work_mem": "64MB"}}
 *
 * The mode of a read replica is "Replica", that of a static endpoint {"Static": "0/16B5A50"}.
 */
import type { EndpointMode } from "../../compute/client.ts";
import {
  fsyncDirectory,
  makeDirectory,
  makePassableDirectory,
  replaceFile,
} from "../../libs/utils/durable.ts";
import { BadRequest, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { join } from "../../libs/utils/paths.ts";
import {
  choice,
  either,
  flag,
  mapOf,
  optional,
  type Shape,
  table,
  text,
} from "../../libs/utils/shape.ts";
import { idShape, parseRecord, portShape, versionShape } from "./shapes.ts";
import { didYouMean } from "./suggest.ts";

/** How far above the first port the search for a free one goes. */
const ENDPOINT_PORTS_MAX = 2000;
const PORT_MAX = 65_535;

/** The definition of an endpoint. */
export interface EndpointRecord {
  endpoint_id: string;
  tenant_id: TenantId;
  timeline_id: TimelineId;
  mode: EndpointMode;
  pg_port: number;
  pg_version: number;
  /** Lines of postgresql.conf, if there are any. */
  settings?: EndpointSettings;
  /** Every page is fetched at each start, none when it is read. */
  eager?: boolean;
}

const RECORD: Shape<EndpointRecord> = {
  endpoint_id: text(/^/, "a name"),
  tenant_id: idShape,
  timeline_id: idShape,
  mode: either(
    choice("Primary", "Replica"),
    table<{ Static: string }>({ Static: text(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/, "an LSN") }),
  ),
  pg_port: portShape,
  pg_version: versionShape,
  settings: optional(mapOf(text(/^/, "a text"))),
  eager: optional(flag),
};

/** Settings of PostgreSQL by name. */
export type EndpointSettings = Readonly<Record<string, string>>;

/** Settings from texts such as "work_mem=64MB". Throws BadRequest. */
export function parseEndpointSettings(texts: readonly string[]): EndpointSettings {
  return Object.fromEntries(texts.map((text) => {
    const [, name, value] = /^([a-z_][a-z0-9_.]*)=(.*)$/s.exec(text) ?? [];
    if (/[\p{Cc}]/u.test(value ?? "")) {
      throw new BadRequest(`Cannot use the setting "${name}": its value has control characters`);
    }
    if (name !== undefined && value !== undefined) return [name, value];
    throw new BadRequest(`Cannot read the setting "${text}": use name=value, name in lower case`);
  }));
}

/** Whether `name` can be an endpoint's name (it is a directory name as well). */
export function isEndpointName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(name);
}

/** Throws BadRequest unless `name` can be an endpoint's name. */
export function checkEndpointName(name: string): void {
  if (isEndpointName(name)) return;
  throw new BadRequest(
    `Cannot name an endpoint "${name}": use up to 63 letters, digits, "_" and "-"`,
  );
}

function directoryOf(repoDir: string): string {
  return join(repoDir, "endpoints");
}

/** Reads one endpoint's definition, or undefined if there is none. */
export function loadEndpointRecord(repoDir: string, name: string): EndpointRecord | undefined {
  checkEndpointName(name);
  const path = join(directoryOf(repoDir), name, "endpoint.json");
  const json = ifThere(() => Deno.readTextFileSync(path));
  if (json === undefined) return undefined;
  return parseRecord<EndpointRecord>(path, json, { ...RECORD, endpoint_id: choice(name) });
}

/** That there is no endpoint of this name, with the one that was probably meant. */
export function endpointNotFound(repoDir: string, name: string): NotFound {
  const names = listEndpointRecords(repoDir).map((record) => record.endpoint_id);
  const hint = didYouMean(name, names) || `; "neon endpoint start ${name}" makes it`;
  const known = names.length === 0 ? "there is none yet" : `there are ${names.join(", ")}`;
  return new NotFound(`Cannot find endpoint "${name}": ${known}${hint}`);
}

/** All definitions, sorted by name. */
export function listEndpointRecords(repoDir: string): EndpointRecord[] {
  const entries = ifThere(() => [...Deno.readDirSync(directoryOf(repoDir))]) ?? [];
  const names = entries.filter((entry) => entry.isDirectory).map((entry) => entry.name);
  return names.sort().map((name) => loadEndpointRecord(repoDir, name))
    .filter((record) => record !== undefined);
}

/** Replaces one definition durably. The caller holds the directory lock. */
export function storeEndpointRecord(repoDir: string, record: EndpointRecord): void {
  const directory = join(directoryOf(repoDir), record.endpoint_id);
  if (ifThere(() => Deno.statSync(directoryOf(repoDir))) === undefined) {
    makeDirectory(directoryOf(repoDir));
  }
  makePassableDirectory(directory);
  const text = JSON.stringify(record, null, 2) + "\n";
  replaceFile(join(directory, "endpoint.json"), new TextEncoder().encode(text));
  fsyncDirectory(directoryOf(repoDir)); // it is on disk with the file: this costs less than before
}

/** Forgets an endpoint. */
export function removeEndpointRecord(repoDir: string, name: string): void {
  checkEndpointName(name);
  Deno.removeSync(join(directoryOf(repoDir), name), { recursive: true });
  fsyncDirectory(directoryOf(repoDir));
}

/** The first port from `first` up that no definition has and nobody listens on. */
export function nextFreePort(records: EndpointRecord[], first: number): number {
  const taken = new Set(records.map((record) => record.pg_port));
  const end = Math.min(first + ENDPOINT_PORTS_MAX, PORT_MAX + 1);
  for (let port = first; port < end; port++) {
    if (!taken.has(port) && isPortFree("127.0.0.1", port)) return port;
  }
  throw new Unavailable(
    `Cannot find a free port for an endpoint from ${first} to ${end - 1}: name one with --pg-port`,
  );
}

/** Whether this process could listen on the address now. */
export function isPortFree(hostname: string, port: number): boolean {
  try {
    Deno.listen({ hostname, port }).close();
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.AddrInUse) return false;
    throw thrown;
  }
}
