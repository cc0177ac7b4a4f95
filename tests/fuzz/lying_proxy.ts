/**
 * A server that lies, made of an honest one: a proxy that passes on what the client says, and what
 * the server says with faults in it. It knows where messages of PostgreSQL's protocol begin; what
 * is in their CopyData is for the `distort` of whoever uses it.
 */
import type { SeededRandom } from "../load/random.ts";
import { anything, joined, mutated } from "./mutations.ts";

const HEAD_BYTES = 5;
const COPY_DATA = 0x64;
const LENGTHS = [0, 3, 4, 5, 64, 0x3fffff, 0x3ffffff, 0x4000001, 0x7fffffff, 0xffffffff];
const DRIP_MS = 5;

/** Another payload in place of an honest one; undefined: leaves it as it is. */
type Distort = (payload: Uint8Array, random: SeededRandom) => Uint8Array | undefined;

/** One message of the protocol. */
function framed(
  type: string | number,
  body: Uint8Array,
  length = body.length + 4,
): Uint8Array {
  const head = new Uint8Array(HEAD_BYTES);
  head[0] = typeof type === "number" ? type : type.charCodeAt(0);
  new DataView(head.buffer).setUint32(1, length);
  return joined(head, body);
}

/** See the head of the file. */
export class LyingProxy implements AsyncDisposable {
  /** How many messages had a fault. */
  lies = 0;
  /** The share of CopyData messages that have one; of others, a tenth of it. */
  readonly #share: number;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #upstream: { readonly hostname: string; readonly port: number };
  readonly #random: SeededRandom;
  readonly #distort: Distort;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  #closed = false;

  constructor(upstreamPort: number, random: SeededRandom, share: number, distort: Distort) {
    this.#upstream = { hostname: "127.0.0.1", port: upstreamPort };
    this.#random = random;
    this.#share = share;
    this.#distort = distort;
    this.#accepting = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async #accept(): Promise<void> {
    const work: Promise<void>[] = [];
    for (;;) {
      try {
        work.push(this.#serve(await this.#listener.accept()));
      } catch {
        break;
      }
    }
    await Promise.all(work);
  }

  async #serve(client: Deno.TcpConn): Promise<void> {
    this.#open.add(client);
    let server: Deno.TcpConn | undefined;
    try {
      server = await Deno.connect(this.#upstream);
      this.#open.add(server);
      if (this.#closed) return;
      await Promise.race([pass(client, server), this.#lie(server, client)]);
    } catch {
      /* one of them has gone */
    } finally {
      for (const one of [client, server]) this.#end(one);
    }
  }

  #end(connection: Deno.TcpConn | undefined): void {
    if (connection === undefined || !this.#open.delete(connection)) return;
    try {
      connection.close();
    } catch { /* already */ }
  }

  async #lie(server: Deno.TcpConn, client: Deno.TcpConn): Promise<void> {
    let rest: Uint8Array = new Uint8Array();
    const buffer = new Uint8Array(65536);
    for (;;) {
      const count = await server.read(buffer);
      if (count === null) return;
      rest = joined(rest, buffer.subarray(0, count));
      for (;;) {
        if (rest.length < HEAD_BYTES) break;
        const end = 1 + new DataView(rest.buffer, rest.byteOffset).getUint32(1);
        if (rest.length < end) break;
        await this.#pass(rest.slice(0, end), client);
        rest = rest.subarray(end);
      }
    }
  }

  async #pass(message: Uint8Array, client: Deno.TcpConn): Promise<void> {
    const random = this.#random;
    const isData = message[0] === COPY_DATA;
    const share = isData ? this.#share : this.#share / 10;
    if (random.next() >= share) return await writeAll(client, message);
    this.lies++;
    const body = message.subarray(HEAD_BYTES);
    switch (random.between(0, isData ? 19 : 9)) {
      case 0: // cut off
        await writeAll(client, message.subarray(0, random.between(0, message.length - 1)));
        throw new Error("closed");
      case 1:
        return await writeAll(client, framed(message[0]!, body, random.pick(LENGTHS)));
      case 2: // in single bytes
        for (const byte of message.subarray(0, 200)) {
          await writeAll(client, Uint8Array.of(byte));
          await new Promise((resolve) => setTimeout(resolve, DRIP_MS));
        }
        return await writeAll(client, message.subarray(200));
      case 3:
        return await writeAll(client, framed("E", anything(random, 300)));
      case 4:
        return await writeAll(client, framed(random.between(0, 127), anything(random, 60)));
      case 5:
        return await writeAll(client, joined(message, message));
      case 6: // never said
        return;
      case 7:
        return await writeAll(client, anything(random, 200));
      case 8:
        return await writeAll(client, joined(framed("N", anything(random, 90)), message));
      case 9:
        return await writeAll(client, framed(message[0]!, anything(random, 80)));
      default:
        return await writeAll(client, framed(message[0]!, this.#distort(body, random) ?? body));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#listener.close();
    for (const connection of [...this.#open]) this.#end(connection);
    await this.#accepting;
  }
}

async function pass(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(65536);
  for (;;) {
    const count = await from.read(buffer);
    if (count === null) return;
    await writeAll(to, buffer.subarray(0, count));
  }
}

async function writeAll(to: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}

/** A payload with faults anywhere, or at one of these places an absurd 64-bit number. */
export function absurd(
  payload: Uint8Array,
  places: readonly number[],
  random: SeededRandom,
): Uint8Array {
  if (random.next() < 0.3) return mutated(payload, random);
  const changed = payload.slice();
  const at = random.pick(places);
  if (at + 8 > changed.length) return mutated(payload, random);
  const view = new DataView(changed.buffer);
  const was = view.getBigUint64(at);
  view.setBigUint64(
    at,
    BigInt.asUintN(
      64,
      random.pick([
        0n,
        was + 8n,
        was - 8n,
        was + 1n,
        was + (1n << 24n),
        (1n << 53n) - 1n,
        1n << 53n,
        (1n << 64n) - 1n,
      ]),
    ),
  );
  return changed;
}
