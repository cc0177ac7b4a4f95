/** Sockets that speak in messages of a fixed length. */

/** Fills `into`; false if the connection ends before. Throws what the socket throws. */
export async function readWhole(connection: Deno.Conn, into: Uint8Array): Promise<boolean> {
  for (let at = 0; at < into.length;) {
    const count = await connection.read(at === 0 ? into : into.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

/** Closes a connection that may be closed already. */
export function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.BadResource)) throw thrown;
  }
}
