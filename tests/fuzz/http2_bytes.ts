/**
 * What a gRPC client sends, byte by byte: HTTP/2 frames (RFC 9113) with header fields as literals
 * (RFC 7541, 6.2.3), so that damage can be done to any of it.
 */
import { joined } from "./mutations.ts";

const DATA = 0;
const HEADERS = 1;
const SETTINGS = 4;
const END_STREAM = 1;
const END_HEADERS = 4;
const INITIAL_WINDOW_SIZE = 4;
const FRAME_HEADER_BYTES = 9;

const text = new TextEncoder();

/** The connection preface, without the SETTINGS that belong to it. */
export const PREFACE = text.encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Any frame. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array) {
  const header = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, payload.length << 8);
  view.setUint8(3, type);
  view.setUint8(4, flags);
  view.setUint32(5, stream);
  return joined(header, payload);
}

/** SETTINGS that let the server send no more than so much on a stream. */
export function settings(windowBytes: number): Uint8Array {
  const payload = new Uint8Array(6);
  const view = new DataView(payload.buffer);
  view.setUint16(0, INITIAL_WINDOW_SIZE);
  view.setUint32(2, windowBytes);
  return frame(SETTINGS, 0, 0, payload);
}

function field(name: string, value: string): Uint8Array {
  const [bytes, content] = [text.encode(name), text.encode(value)];
  return joined(Uint8Array.of(0x10, bytes.length), bytes, Uint8Array.of(content.length), content);
}

/** The beginning of a call. */
export function call(stream: number, path: string): Uint8Array {
  const fields = [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "localhost"],
    ["te", "trailers"],
    ["content-type", "application/grpc"],
  ] as const;
  const block = joined(...fields.map(([name, value]) => field(name, value)));
  return frame(HEADERS, END_HEADERS, stream, block);
}

/** A message of a call; `isLast` ends the client's side of it. */
export function message(stream: number, content: Uint8Array, isLast: boolean): Uint8Array {
  const prefix = new Uint8Array(5);
  new DataView(prefix.buffer).setUint32(1, content.length);
  return frame(DATA, isLast ? END_STREAM : 0, stream, joined(prefix, content));
}
