/**
 * What the broker takes of a request, and what it refuses: half an id is no timeline, and least of
 * all it is every timeline. As Neon's storage_broker does; each function throws BadRequest.
 */
import { BadRequest } from "../libs/utils/errors.ts";
import { encodeHex } from "../libs/utils/hex.ts";
import type { WireTimelineInfo, WireTimelineKey, WireTypedMessage } from "./messages.ts";

const ID_BYTES = 16;

/** The type of messages that say where a safekeeper stands. */
const TIMELINE_INFO = "SAFEKEEPER_TIMELINE_INFO";

/** A subscription to infos on the wire. */
export interface SubscribeRequest {
  /** Which of the two is there. */
  readonly subscription_key?: "all" | "tenant_timeline_id";
  readonly tenant_timeline_id?: WireTimelineKey | null;
}

/** A subscription by types of messages on the wire; a number is a type that we do not know. */
export interface FilterRequest {
  readonly types: readonly { readonly type: string | number }[];
  readonly tenant_timeline_id?: {
    readonly enabled: boolean;
    readonly tenant_timeline_id?: WireTimelineKey | null;
  } | null;
}

/** What a subscriber wants to hear. */
export interface Wanted {
  /** Key of a timeline; undefined: of all. */
  readonly timeline: string | undefined;
  readonly types: ReadonlySet<string>;
}

/** The key under which subscribers of a timeline are kept. */
function timelineKey(wire: WireTimelineKey | null | undefined): string {
  if (wire === null || wire === undefined) {
    throw new BadRequest("Cannot use the request: it names no timeline");
  }
  return idText("tenant_id", wire.tenant_id) + idText("timeline_id", wire.timeline_id);
}

function idText(name: string, bytes: Uint8Array): string {
  if (bytes.length === ID_BYTES) return encodeHex(bytes);
  throw new BadRequest(
    `Cannot use the request: its ${name} has ${bytes.length} bytes instead of ${ID_BYTES}`,
  );
}

/** Of a subscription to infos. */
export function wantedInfos(request: SubscribeRequest): Wanted {
  const types = new Set([TIMELINE_INFO]);
  if (request.subscription_key === "all") return { timeline: undefined, types };
  return { timeline: timelineKey(request.tenant_timeline_id), types };
}

/** Of a subscription by types. */
export function wantedByFilter(request: FilterRequest): Wanted {
  const types = new Set(request.types.map(({ type }) => knownType(type)));
  if (types.size === 0) throw new BadRequest("Cannot use the request: it asks for no type");
  const filter = request.tenant_timeline_id;
  if (!filter?.enabled) return { timeline: undefined, types };
  return { timeline: timelineKey(filter.tenant_timeline_id), types };
}

/** The field of a message that goes with its type. */
const CONTENT = {
  [TIMELINE_INFO]: "safekeeper_timeline_info",
  SAFEKEEPER_DISCOVERY_REQUEST: "safekeeper_discovery_request",
  SAFEKEEPER_DISCOVERY_RESPONSE: "safekeeper_discovery_response",
} as const;

type KnownType = keyof typeof CONTENT;

function knownType(type: string | number): KnownType {
  if (typeof type === "string" && Object.hasOwn(CONTENT, type)) return type as KnownType;
  throw new BadRequest(`Cannot use the request: there is no message of type ${type}`);
}

/** The timeline that a message is about. */
export function timelineOf(message: WireTypedMessage): string {
  const content = message[CONTENT[knownType(message.type)]];
  if (content === null || content === undefined) {
    throw new BadRequest(`Cannot use the request: a ${message.type} without its content`);
  }
  checkNumbers(content);
  return timelineKey(content.tenant_timeline_id);
}

/** Numbers beyond 2^53 have been rounded on their way here; nobody is to rely on them. */
function checkNumbers(content: object): void {
  for (const [name, value] of Object.entries(content)) {
    if (typeof value !== "number" || Number.isSafeInteger(value)) continue;
    throw new BadRequest(`Cannot use the request: its ${name} is out of range`);
  }
}

/** A safekeeper's info as a message, and the timeline that it is about. */
export function infoMessage(info: WireTimelineInfo): [WireTypedMessage, timeline: string] {
  const message = { type: TIMELINE_INFO, safekeeper_timeline_info: info };
  return [message, timelineOf(message)];
}
