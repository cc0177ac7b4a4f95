/**
 * The server side of the PostgreSQL protocol, as far as our daemons speak it: startup, simple
 * queries, COPY OUT and COPY BOTH. The handler of a connection runs as one async function.
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { messageOf, Unauthorized } from "../utils/errors.ts";
import type { TenantId } from "../utils/id.ts";
import { logger } from "../utils/log.ts";
import { CopyBoth } from "./copy_both.ts";
import { MessageReader } from "./message_reader.ts";
import {
  AuthenticationCode,
  type Column,
  COPY_RESPONSE_BODY,
  cstrBytes,
  dataRowBody,
  errorBody,
  MessageType,
  rowDescriptionBody,
  StartupCode,
} from "./messages.ts";
import { SendBuffer } from "./send_buffer.ts";

const log = logger("pgwire");

/** What clients are told that they talk to; drivers want a version that they know. */
const SERVER_PARAMETERS: readonly (readonly [string, string])[] = [
  ["server_version", "17.0"],
  ["server_encoding", "UTF8"],
  ["client_encoding", "UTF8"],
  ["standard_conforming_strings", "on"],
  ["integer_datetimes", "on"],
  ["DateStyle", "ISO, MDY"],
];

/** SQLSTATE of a login that is refused, as PostgreSQL's for a wrong password. */
const INVALID_PASSWORD = "28P01";
/** Longest password message, as PostgreSQL has it (PG_MAX_AUTH_TOKEN_LENGTH, libpq/auth.h). */
const PASSWORD_BYTES_MAX = 65535;
/** Longest message of a session: our commands are a line of text. */
const QUERY_LIMIT_BYTES = 8 * 1024;

/** A client has to say who it is within so long (PostgreSQL's authentication_timeout). */
const STARTUP_MS_MAX = 60_000;

/** Pause after a connection could not be accepted, which is so when there are no descriptors. */
const ACCEPT_PAUSE_MS = 100;

const READY_IDLE = new Uint8Array([0x49]);

/** What the client of a connection may touch. */
export interface PgAccess {
  /** Throws Forbidden unless that is the data of this tenant. */
  checkTenant(tenant: TenantId): void;
}

/** Where nobody is asked who he is. */
const TRUST: PgAccess = { checkTenant() {} };

/** One connection after its startup. */
export class PgSession {
  readonly access: PgAccess;
  /** Startup parameters: user, database, options, application_name and so on. */
  readonly parameters: ReadonlyMap<string, string>;
  readonly #reader: MessageReader;
  readonly #sender: SendBuffer;
  readonly #connection: Deno.Conn;

  constructor(
    access: PgAccess,
    parameters: ReadonlyMap<string, string>,
    reader: MessageReader,
    sender: SendBuffer,
    connection: Deno.Conn,
  ) {
    this.access = access;
    this.parameters = parameters;
    this.#reader = reader;
    this.#sender = sender;
    this.#connection = connection;
  }

  /**
   * The `-c name=value` settings of the `options` parameter. A value may itself contain "=".
   */
  options(): Map<string, string> {
    const found = new Map<string, string>();
    const words = (this.parameters.get("options") ?? "").split(/\s+/).filter((word) => word !== "");
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!;
      const setting = word === "-c" ? words[++i] : word.startsWith("-c") ? word.slice(2) : word;
      const equals = setting?.indexOf("=") ?? -1;
      if (setting === undefined || equals <= 0) continue;
      found.set(setting.slice(0, equals), setting.slice(equals + 1));
    }
    return found;
  }

  /** Text of the next simple query; undefined when the client has left. */
  async nextQuery(): Promise<string | undefined> {
    while (await this.#reader.next()) {
      if (this.#reader.type === MessageType.terminate) return undefined;
      if (this.#reader.type === MessageType.query) {
        return new ByteReader(this.#reader.body(), "big", "a query").cstr();
      }
      if (this.#reader.type === MessageType.copyDone) continue;
      // Of a client that sends its token without being asked
      if (this.#reader.type === MessageType.password) continue;
      const type = String.fromCharCode(this.#reader.type);
      await this.sendError("0A000", `Cannot handle a message of type "${type}" here`);
    }
    return undefined;
  }

  /** Sends a result set. */
  async sendRows(
    columns: readonly Column[],
    rows: readonly (readonly (string | null)[])[],
    tag: string,
  ): Promise<void> {
    this.#sender.message(MessageType.rowDescription, rowDescriptionBody(columns));
    for (const row of rows) this.#sender.message(MessageType.dataRow, dataRowBody(row));
    await this.commandComplete(tag);
  }

  /** Ends a command without rows. */
  async commandComplete(tag: string): Promise<void> {
    this.#sender.message(MessageType.commandComplete, cstrBytes(tag));
    this.#sender.message(MessageType.readyForQuery, READY_IDLE);
    await this.#sender.flush();
  }

  /** Answers a command with an error; the session goes on. */
  async sendError(code: string, message: string): Promise<void> {
    this.#sender.message(MessageType.error, errorBody("ERROR", code, message));
    this.#sender.message(MessageType.readyForQuery, READY_IDLE);
    await this.#sender.flush();
  }

  /** Starts COPY OUT. */
  beginCopyOut(): Promise<void> {
    this.#sender.message(MessageType.copyOutResponse, COPY_RESPONSE_BODY);
    return this.#sender.flush();
  }

  /** Sends one CopyData of a COPY OUT. */
  copyData(bytes: Uint8Array): Promise<void> {
    this.#sender.message(MessageType.copyData, bytes);
    return this.#sender.flush();
  }

  /** Ends COPY OUT. */
  endCopyOut(tag: string): Promise<void> {
    this.#sender.message(MessageType.copyDone, new Uint8Array(0));
    return this.commandComplete(tag);
  }

  /**
   * Starts COPY BOTH; the returned stream owns the connection from here on. The client's messages
   * have at most `limitBytes`.
   */
  async beginCopyBoth(limitBytes: number): Promise<CopyBoth> {
    this.#reader.limitBytes = limitBytes;
    this.#sender.message(MessageType.copyBothResponse, COPY_RESPONSE_BODY);
    await this.#sender.flush();
    return new CopyBoth(this.#reader, this.#sender, () => closeQuietly(this.#connection));
  }
}

/** Where to listen and what to do with connections. */
interface PgServerOptions {
  readonly hostname: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** What the password of a client opens; without it none is asked for. Throws Unauthorized. */
  readonly login?: ((password: string) => Promise<PgAccess>) | undefined;
  /** Serves one connection; it is closed when the promise settles. Errors are logged. */
  readonly onConnection: (session: PgSession) => Promise<void>;
  /** How long a client may take to say who it is. */
  readonly startupMsMax?: number;
}

/** A listening server. */
export interface PgServer {
  readonly hostname: string;
  readonly port: number;
  /** Stops listening, closes all connections and waits for their handlers. */
  close(): Promise<void>;
}

/** Listens. Throws Deno.errors.AddrInUse if the port is taken. */
export function servePg(options: PgServerOptions): PgServer {
  const listener = Deno.listen({ hostname: options.hostname, port: options.port });
  const connections = new Map<Deno.Conn, Promise<void>>();
  const accepting = acceptAll(listener, (connection) => {
    const done = serveConnection(connection, options).finally(() => {
      closeQuietly(connection);
      connections.delete(connection);
    });
    connections.set(connection, done);
  });
  return {
    hostname: options.hostname,
    port: listener.addr.port,
    async close() {
      listener.close();
      await accepting;
      for (const connection of connections.keys()) closeQuietly(connection);
      await Promise.all(connections.values());
    },
  };
}

/** Until the listener is closed. Out of descriptors, it goes on when there are some again. */
async function acceptAll(
  listener: Deno.TcpListener,
  onConnection: (connection: Deno.TcpConn) => void,
): Promise<void> {
  for (let isRefusing = false;;) {
    try {
      onConnection(await listener.accept());
      isRefusing = false;
    } catch (thrown) {
      const { BadResource, Interrupted } = Deno.errors;
      if (thrown instanceof BadResource || thrown instanceof Interrupted) return; // closed
      if (!isRefusing) log.error("cannot accept a connection: {why}", { why: messageOf(thrown) });
      isRefusing = true;
      await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE_MS));
    }
  }
}

async function serveConnection(connection: Deno.TcpConn, options: PgServerOptions): Promise<void> {
  const reader = new MessageReader(connection);
  const sender = new SendBuffer(connection);
  reader.limitBytes = PASSWORD_BYTES_MAX;
  const startupMsMax = options.startupMsMax ?? STARTUP_MS_MAX;
  const late = setTimeout(() => closeQuietly(connection), startupMsMax);
  try {
    connection.setNoDelay(true);
    const parameters = await readStartup(reader, sender);
    if (parameters === undefined) return;
    const access = options.login === undefined
      ? TRUST
      : await askPassword(reader, sender, options.login);
    if (access === undefined) return;
    greet(sender);
    await sender.flush();
    clearTimeout(late);
    reader.limitBytes = QUERY_LIMIT_BYTES;
    await options.onConnection(new PgSession(access, parameters, reader, sender, connection));
  } catch (thrown) {
    if (isDisconnect(thrown)) return;
    log.warning("connection ended: {message}", { message: messageOf(thrown) });
    try {
      const code = thrown instanceof Unauthorized ? INVALID_PASSWORD : "XX000";
      sender.message(MessageType.error, errorBody("FATAL", code, messageOf(thrown)));
      await sender.flush();
    } catch {
      // the client is gone: there is nobody to tell
    }
  } finally {
    clearTimeout(late);
  }
}

/** Startup parameters; undefined for a client that left or only wanted to cancel. */
async function readStartup(
  reader: MessageReader,
  sender: SendBuffer,
): Promise<Map<string, string> | undefined> {
  while (await reader.nextStartup()) {
    const body = new ByteReader(reader.body(), "big", "a startup packet");
    const code = body.u32();
    if (code === StartupCode.ssl || code === StartupCode.gss) {
      sender.raw(new Uint8Array([0x4e])); // "N": not here, go on without
      await sender.flush();
      continue;
    }
    if (code === StartupCode.cancel) return undefined;
    if (Math.floor(code / 65536) !== 3) throw new Error(`Cannot speak protocol version ${code}`);
    const parameters = new Map<string, string>();
    for (let name = body.cstr(); name !== ""; name = body.cstr()) {
      parameters.set(name, body.cstr());
      if (body.remaining === 0) break;
    }
    return parameters;
  }
  return undefined;
}

/** Asks for a password and looks what it opens; undefined for a client that left. */
async function askPassword(
  reader: MessageReader,
  sender: SendBuffer,
  login: (password: string) => Promise<PgAccess>,
): Promise<PgAccess | undefined> {
  sender.message(MessageType.authentication, authenticationBody("cleartextPassword"));
  await sender.flush();
  if (!await reader.next()) return undefined;
  if (reader.type !== MessageType.password) {
    throw new Unauthorized("Cannot authenticate: the client sent no password");
  }
  return await login(new ByteReader(reader.body(), "big", "a password").cstr());
}

function authenticationBody(what: keyof typeof AuthenticationCode): Uint8Array {
  return new ByteWriter("big").u32(AuthenticationCode[what]).bytes();
}

function greet(sender: SendBuffer): void {
  sender.message(MessageType.authentication, authenticationBody("ok"));
  for (const [name, value] of SERVER_PARAMETERS) {
    sender.message(MessageType.parameterStatus, cstrBytes(`${name}\0${value}`));
  }
  sender.message(
    MessageType.backendKeyData,
    new ByteWriter("big").u32(0).u32(0).bytes(),
  );
  sender.message(MessageType.readyForQuery, READY_IDLE);
}

/** True for what happens when the peer or we close a connection: not worth a log line. */
export function isDisconnect(thrown: unknown): boolean {
  return thrown instanceof Deno.errors.ConnectionReset ||
    thrown instanceof Deno.errors.BrokenPipe || thrown instanceof Deno.errors.BadResource ||
    thrown instanceof Deno.errors.Interrupted || thrown instanceof Deno.errors.ConnectionAborted ||
    thrown instanceof Deno.errors.NotConnected || thrown instanceof Deno.errors.UnexpectedEof;
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // closed before
  }
}
