/**
 * Tenant and timeline ids: 16 random bytes, printed and kept in memory as 32 lower-case hex digits,
 * so that they work as Map keys, file names and JSON values alike. Wire formats that carry the raw
 * bytes convert at their edge.
 */
import { decodeHex, encodeHex } from "./hex.ts";

declare const tenantBrand: unique symbol;
declare const timelineBrand: unique symbol;

/** Names one tenant: one PostgreSQL cluster's history, with all its branches. */
export type TenantId = string & { readonly [tenantBrand]: true };
/** Names one timeline: one branch of a tenant. */
export type TimelineId = string & { readonly [timelineBrand]: true };

const ID_TEXT = /^[0-9a-f]{32}$/;

/** Whether this is the text of an id. */
export function isId(text: string): boolean {
  return ID_TEXT.test(text.toLowerCase());
}

function parseId(kind: string, text: string): string {
  const lower = text.toLowerCase();
  if (!isId(lower)) {
    throw new SyntaxError(
      `Cannot parse a ${kind} id (expected 32 hex digits): current value is "${text}"`,
    );
  }
  return lower;
}

/** Parses 32 hex digits. Throws SyntaxError otherwise. */
export function parseTenantId(text: string): TenantId {
  return parseId("tenant", text) as TenantId;
}

/** Parses 32 hex digits. Throws SyntaxError otherwise. */
export function parseTimelineId(text: string): TimelineId {
  return parseId("timeline", text) as TimelineId;
}

/** The 16 raw bytes of an id. */
export function idBytes(id: TenantId | TimelineId): Uint8Array {
  return decodeHex(id);
}

/** A tenant id from its 16 raw bytes. */
export function tenantIdFromBytes(bytes: Uint8Array): TenantId {
  return parseTenantId(encodeHex(bytes));
}

/** A timeline id from its 16 raw bytes. */
export function timelineIdFromBytes(bytes: Uint8Array): TimelineId {
  return parseTimelineId(encodeHex(bytes));
}

/** A new random tenant id. */
export function newTenantId(): TenantId {
  return encodeHex(crypto.getRandomValues(new Uint8Array(16))) as TenantId;
}

/** A new random timeline id. */
export function newTimelineId(): TimelineId {
  return encodeHex(crypto.getRandomValues(new Uint8Array(16))) as TimelineId;
}
