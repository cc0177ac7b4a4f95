/**
 * The client side of the PostgreSQL protocol, as far as our daemons need it of each other and of a
 * local Postgres: no authentication or a cleartext password, which is a token; simple queries, COPY
 * OUT and COPY BOTH.
 */
import { connectError } from "../utils/address.ts";
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Unavailable } from "../utils/errors.ts";
import type { TokenSource } from "../utils/token_source.ts";
import { CopyBoth } from "./copy_both.ts";
import { MessageReader } from "./message_reader.ts";
import {
  AuthenticationCode,
  type Column,
  cstrBytes,
  MessageType,
  readColumns,
  readDataRow,
  readError,
  readReport,
  ServerError,
  type ServerReport,
  StartupCode,
} from "./messages.ts";
import { SendBuffer } from "./send_buffer.ts";

/** Where a server listens. */
type PgAddress = { readonly hostname: string; readonly port: number } | {
  readonly unixPath: string;
};

/** Result of a simple query (of the last statement in it). */
interface QueryResult {
  readonly columns: string[];
  readonly rows: (string | null)[][];
  readonly tag: string;
}

/** As long as PostgreSQL makes a row (MaxAllocSize, utils/memutils.h). */
const ROW_BYTES_MAX = 0x3fffffff;

/** One thing that a server answers to SQL text. */
export type Answer =
  | { readonly kind: "columns"; readonly columns: readonly Column[] }
  | { readonly kind: "row"; readonly values: readonly (string | null)[] }
  | { readonly kind: "copied"; readonly bytes: Uint8Array }
  | { readonly kind: "done"; readonly tag: string }
  | { readonly kind: "notice" | "error"; readonly report: ServerReport };

/** One connection. */
export class PgClient {
  readonly #connection: Deno.Conn;
  readonly #reader: MessageReader;
  readonly #sender: SendBuffer;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
    this.#reader = new MessageReader(connection);
    this.#sender = new SendBuffer(connection);
  }

  /**
   * Connects and completes the startup. Throws what Deno.connect throws, ServerError if the server
   * refuses, Unavailable if it hangs up. When `signal` aborts the connection is closed, then or
   * later: a server that does not answer keeps no socket. `token` is for a server that wants one.
   */
  static async connect(
    address: PgAddress,
    parameters: Readonly<Record<string, string>>,
    signal?: AbortSignal,
    token?: TokenSource,
  ): Promise<PgClient> {
    return await PgClient.over(await open(address), parameters, token, signal);
  }

  /**
   * Like `connect`, over a connection that is open already and belongs to the client from here on.
   */
  static async over(
    connection: Deno.Conn,
    parameters: Readonly<Record<string, string>>,
    token?: TokenSource,
    signal?: AbortSignal,
  ): Promise<PgClient> {
    const client = new PgClient(connection);
    try {
      if (signal?.aborted) throw new Unavailable("the connection is not wanted any more");
      signal?.addEventListener("abort", () => client.close(), { once: true });
      await client.#startup(parameters, token);
      return client;
    } catch (thrown) {
      client.close();
      throw thrown;
    }
  }

  async #startup(
    parameters: Readonly<Record<string, string>>,
    token: TokenSource | undefined,
  ): Promise<void> {
    const packet = new ByteWriter("big").u32(0).u32(StartupCode.protocol3);
    for (const [name, value] of Object.entries(parameters)) packet.cstr(name).cstr(value);
    packet.u8(0).patchU32(0, packet.length);
    this.#sender.raw(packet.bytes());
    await this.#sender.flush();
    for (;;) {
      await this.#nextMessage();
      if (this.#reader.type === MessageType.error) throw readError(this.#reader.body());
      if (this.#reader.type === MessageType.readyForQuery) return;
      if (this.#reader.type !== MessageType.authentication) continue;
      const method = new ByteReader(this.#reader.body(), "big", "an authentication request").u32();
      if (method !== AuthenticationCode.ok) await this.#authenticate(method, token);
    }
  }

  async #authenticate(method: number, token: TokenSource | undefined): Promise<void> {
    if (method !== AuthenticationCode.cleartextPassword) {
      throw new ServerError("28000", `Cannot authenticate: the server wants method ${method}`);
    }
    const password = await token?.();
    if (password === undefined) {
      throw new ServerError("28000", "Cannot authenticate: the server wants a token");
    }
    this.#sender.message(MessageType.password, cstrBytes(password));
    await this.#sender.flush();
  }

  /** Runs SQL text. Throws ServerError. */
  async query(sql: string): Promise<QueryResult> {
    await this.#send(sql);
    let columns: string[] = [];
    let rows: (string | null)[][] = [];
    let tag = "";
    let failure: ServerError | undefined;
    for (;;) {
      if (!(await this.#reader.next())) throw failure ?? hungUp(); // also behind a fatal error
      const body = this.#reader.body();
      switch (this.#reader.type) {
        case MessageType.rowDescription:
          columns = readColumns(body).map(({ name }) => name);
          rows = [];
          break;
        case MessageType.dataRow:
          rows.push(readDataRow(body));
          break;
        case MessageType.commandComplete:
          tag = new ByteReader(body, "big", "a command tag").cstr();
          break;
        case MessageType.error:
          failure = readError(body);
          break;
        case MessageType.readyForQuery:
          if (failure !== undefined) throw failure;
          return { columns, rows, tag };
      }
    }
  }

  /**
   * Runs SQL text of any number of statements; gives all answers in order, errors among them, until
   * the server is ready for more. Bytes of COPY are valid until the next answer; COPY FROM STDIN
   * gets nothing, which is an error.
   */
  async *answers(sql: string): AsyncGenerator<Answer> {
    this.#reader.limitBytes = ROW_BYTES_MAX;
    await this.#send(sql);
    for (;;) {
      await this.#nextMessage();
      const body = this.#reader.body();
      switch (this.#reader.type) {
        case MessageType.rowDescription:
          yield { kind: "columns", columns: readColumns(body) };
          break;
        case MessageType.dataRow:
          yield { kind: "row", values: readDataRow(body) };
          break;
        case MessageType.copyInResponse:
          this.#sender.message(MessageType.copyFail, cstrBytes("this client has no data to copy"));
          await this.#sender.flush();
          break;
        case MessageType.copyData:
          yield { kind: "copied", bytes: body };
          break;
        case MessageType.commandComplete:
          yield { kind: "done", tag: new ByteReader(body, "big", "a command tag").cstr() };
          break;
        case MessageType.notice:
          yield { kind: "notice", report: readReport(body) };
          break;
        case MessageType.error:
          yield { kind: "error", report: readReport(body) };
          break;
        case MessageType.readyForQuery:
          return;
      }
    }
  }

  /**
   * Starts a command that answers with COPY BOTH. Throws ServerError. A message that is longer than
   * `limitBytes` ends the stream.
   */
  async copyBoth(command: string, limitBytes = this.#reader.limitBytes): Promise<CopyBoth> {
    await this.#send(command);
    await this.#expect(MessageType.copyBothResponse);
    this.#reader.limitBytes = limitBytes;
    return new CopyBoth(this.#reader, this.#sender, () => this.close());
  }

  /** Runs a command that answers with COPY OUT; each payload is valid until the next. */
  async *copyOut(command: string): AsyncGenerator<Uint8Array> {
    await this.#send(command);
    await this.#expect(MessageType.copyOutResponse);
    let done = false;
    for (;;) {
      await this.#nextMessage();
      switch (this.#reader.type) {
        case MessageType.copyData:
          yield this.#reader.body();
          break;
        case MessageType.copyDone:
          done = true;
          break;
        case MessageType.error:
          throw readError(this.#reader.body());
        case MessageType.readyForQuery:
          if (!done) throw new Unavailable(`Cannot complete "${command}": the copy was cut off`);
          return;
      }
    }
  }

  /** Closes the connection. */
  close(): void {
    closeQuietly(this.#connection);
  }

  #send(sql: string): Promise<void> {
    this.#sender.message(MessageType.query, cstrBytes(sql));
    return this.#sender.flush();
  }

  async #expect(type: number): Promise<void> {
    for (;;) {
      await this.#nextMessage();
      if (this.#reader.type === type) return;
      if (this.#reader.type === MessageType.error) throw readError(this.#reader.body());
    }
  }

  async #nextMessage(): Promise<void> {
    if (!(await this.#reader.next())) throw hungUp();
  }
}

function hungUp(): Unavailable {
  return new Unavailable("Cannot read from the server: it closed the connection");
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // closed before
  }
}

async function open(address: PgAddress): Promise<Deno.Conn> {
  if ("unixPath" in address) {
    return await Deno.connect({ transport: "unix", path: address.unixPath });
  }
  const { hostname, port } = address;
  try {
    const connection = await Deno.connect({ hostname, port });
    connection.setNoDelay(true);
    return connection;
  } catch (thrown) {
    throw connectError(thrown, `${hostname}:${port}`);
  }
}
