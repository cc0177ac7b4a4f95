/**
 * Whether an HTTP/2 server still greets who connects. One that has run out of file descriptors may
 * never accept again, while the system goes on taking connections for it.
 */
import { parseAddress } from "../libs/utils/address.ts";

/** "PRI * ...": what a client sends first, and an empty SETTINGS frame (RFC 9113, 3.4). */
const GREETING = new TextEncoder().encode(
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
);
/** Of a frame's header: length, type, flags, stream. */
const FRAME_TYPE_OFFSET = 3;
const SETTINGS = 4;

/** What became of a greeting. "unknown": we could not even try. */
type Greeted = "answered" | "silent" | "unknown";

/** Greets the server at `address`, for at most `timeoutMs`. Never throws. */
export async function greet(address: string, timeoutMs: number): Promise<Greeted> {
  const { hostname, port } = parseAddress(address);
  let connection: Deno.TcpConn;
  try {
    connection = await Deno.connect({ hostname, port });
  } catch (thrown) {
    return thrown instanceof Deno.errors.ConnectionRefused ? "silent" : "unknown";
  }
  const closing = setTimeout(() => connection.close(), timeoutMs);
  try {
    await connection.write(GREETING);
    const header = new Uint8Array(FRAME_TYPE_OFFSET + 1);
    for (let at = 0; at < header.length;) {
      const count = await connection.read(header.subarray(at));
      if (count === null) return "silent";
      at += count;
    }
    return header[FRAME_TYPE_OFFSET] === SETTINGS ? "answered" : "silent";
  } catch {
    return "silent";
  } finally {
    clearTimeout(closing);
    try {
      connection.close();
    } catch {
      // closed for being late
    }
  }
}
