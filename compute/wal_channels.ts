/**
 * The Unix socket where the endpoints' Postgreses say that they sync WAL (library/wal_flush.c): one
 * for the whole host, because Deno grants sockets by exact path. A connection begins with
 *
 *     u32 "NWAL" | u32 version | key (16 bytes)                                     little endian
 *
 * where the key, which stands in an endpoint's arena, says whose it is. Any user of the machine may
 * connect; without a key nothing happens.
 */
import { type ArenaWal, WAL_KEY_BYTES } from "./lazy_files/arena_wal.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { closeQuietly, readWhole } from "../libs/utils/sockets.ts";

const log = logger("compute", "wal_channels");

const MAGIC = 0x4c41574e; // "NWAL"
const VERSION = 1;
const KEY_AT = 8;
const HELLO_BYTES = KEY_AT + WAL_KEY_BYTES;
/** Whoever connects says so soon. */
const HELLO_MS_MAX = 5000;
/** Pause after a connection could not be accepted. */
const AGAIN_MS = 100;

/** Takes over a connection, and closes it in the end. */
type Serve = (connection: Deno.Conn) => Promise<void>;

/** See the head of the file. */
export class WalChannels {
  readonly #path: string;
  readonly #listener: Deno.Listener;
  readonly #endpoints = new Map<string, Serve>();
  #closed = false;

  /** Listens at `path`, where an earlier host may have. */
  constructor(path: string) {
    this.#path = path;
    ifThere(() => Deno.removeSync(path));
    this.#listener = Deno.listen({ transport: "unix", path });
    Deno.chmodSync(path, 0o666); // Postgres is another user
    this.#accept();
  }

  /** What is to stand in the arena of a new endpoint. */
  newAddress(): ArenaWal {
    const key = crypto.getRandomValues(new Uint8Array(WAL_KEY_BYTES));
    return { socket: this.#path, key, segmentBytes: WAL_SEGMENT_SIZE };
  }

  /** Gives connections with this key to `serve` from now on. */
  register(key: Uint8Array, serve: Serve): void {
    this.#endpoints.set(key.toHex(), serve);
  }

  /** Refuses them from now on. */
  unregister(key: Uint8Array): void {
    this.#endpoints.delete(key.toHex());
  }

  async #accept(): Promise<void> {
    while (!this.#closed) {
      try {
        const connection = await this.#listener.accept();
        this.#greet(connection).catch((thrown) => {
          log.warning("a connection is refused: {why}", { why: messageOf(thrown) });
          closeQuietly(connection);
        });
      } catch (thrown) {
        if (this.#closed) return;
        log.error("cannot accept a connection: {why}", { why: messageOf(thrown) });
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  async #greet(connection: Deno.Conn): Promise<void> {
    const hello = new Uint8Array(HELLO_BYTES);
    const view = new DataView(hello.buffer);
    const late = setTimeout(() => closeQuietly(connection), HELLO_MS_MAX);
    try {
      if (!await readWhole(connection, hello)) return closeQuietly(connection);
    } finally {
      clearTimeout(late);
    }
    if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) {
      throw new Error("it does not speak this protocol");
    }
    const serve = this.#endpoints.get(hello.subarray(KEY_AT).toHex());
    // One that is being adopted connects again
    if (serve === undefined) closeQuietly(connection);
    else await serve(connection);
  }

  /** Listens no more. */
  close(): void {
    this.#closed = true;
    this.#listener.close();
  }
}
