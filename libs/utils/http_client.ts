/**
 * Client of a JSON API over HTTP, as all roles have one. Each role's client.ts gives the paths and
 * the types.
 *
 * A refused request throws the class of libs/utils/errors.ts that its status stands for, with the
 * server's own message; a server that cannot be reached throws Unavailable naming its address.
 */
import { type Address, connectError, parseAddress } from "./address.ts";
import { errorOfHttpStatus, messageOf, TimedOut, Unavailable } from "./errors.ts";
import { exchange, type HttpRequest } from "./http_exchange.ts";
import type { TokenSource } from "./token_source.ts";

/** What can be sent: undefined is no body. */
type HttpBody = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>>;

/** Longest wait for the answer of a GET, whose longest work is a wait of a minute for WAL. */
const GET_MS_MAX = 90_000;

/** One server. */
export class HttpClient {
  readonly #server: string;
  readonly #address: Address;
  readonly #base: string;
  readonly #timeoutMs: number | undefined;
  readonly #token: TokenSource | undefined;

  /**
   * `server` names it in messages ("the pageserver"); `address` is "host:port". Without `timeoutMs`
   * only the answer of a GET may not take any time. `token` is for a server that wants one.
   */
  constructor(server: string, address: string, timeoutMs?: number, token?: TokenSource) {
    this.#server = server;
    this.#address = parseAddress(address);
    this.#base = `http://${address}`;
    this.#timeoutMs = timeoutMs;
    this.#token = token;
  }

  /** Sends `body` as JSON; the answer's JSON, undefined if it is empty. */
  json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return this.send(method, path, text, "application/json");
  }

  /** Sends bytes; the answer as with json(). */
  async send<T>(
    method: string,
    path: string,
    body: HttpBody | undefined,
    contentType: string,
  ): Promise<T> {
    const token = await this.#token?.();
    const [status, text] = await this.#exchange({
      method,
      path,
      headers: {
        ...(body === undefined ? {} : { "content-type": contentType }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: typeof body === "string" ? new TextEncoder().encode(body) : body,
    });
    if (status >= 200 && status < 300) return (text === "" ? undefined : JSON.parse(text)) as T;
    throw errorOfHttpStatus(status, messageIn(text));
  }

  async #exchange(request: HttpRequest): Promise<[status: number, text: string]> {
    const { method, path } = request;
    const timeoutMs = this.#timeoutMs ?? (method === "GET" ? GET_MS_MAX : undefined);
    const signal = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
    try {
      const { status, body } = await exchange(this.#address, request, signal);
      return [status, new TextDecoder().decode(body)];
    } catch (thrown) {
      const { hostname, port } = this.#address;
      const where = `${this.#server} at ${this.#base}`;
      if (signal?.aborted) {
        throw new TimedOut(
          `Cannot wait longer than ${timeoutMs} ms for ${where} to answer ${method} ${path}`,
        );
      }
      const why = messageOf(connectError(thrown, `${hostname}:${port}`));
      throw new Unavailable(`Cannot reach ${where}: ${plain(why)}`);
    }
  }
}

/** "Connection refused (os error 111)" in the words of a sentence. */
function plain(why: string): string {
  const [, said] = /^(.*) \(os error \d+\)/.exec(why) ?? [];
  return said?.toLowerCase() ?? why;
}

/** The message of an error's body `{"msg": "..."}`; of a stranger, all its text. */
function messageIn(body: string): string {
  try {
    return (JSON.parse(body) as { msg: string }).msg;
  } catch {
    return body;
  }
}
