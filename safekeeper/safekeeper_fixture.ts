/** For tests of safekeepers: WAL of real records, proposers, daemons in temporary directories. */
import { join } from "node:path";
import { PgClient } from "../libs/pgwire/client.ts";
import type { CopyBoth } from "../libs/pgwire/copy_both.ts";
import { Rmgr, WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import type { WalIdentity } from "../libs/postgres/wal/page_header.ts";
import { buildRecord, WalWriter } from "../libs/postgres/wal/record_builder.ts";
import { NO_MEMBERSHIP } from "../libs/safekeeper_protocol/membership.ts";
import {
  type AcceptorGreeting,
  type AcceptorMessage,
  decodeAcceptorMessage,
  encodeAppendRequest,
  encodeProposerMessage,
  type ProposerMessage,
  START_WAL_PUSH_COMMAND,
} from "../libs/safekeeper_protocol/messages.ts";
import { parseAddress } from "../libs/utils/address.ts";
import { crc32AddonPath } from "../libs/utils/crc32c.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { SafekeeperClient } from "./client.ts";

/** A cluster of PostgreSQL 17. */
export const TEST_IDENTITY: WalIdentity = {
  version: pgVersion(17),
  segmentSize: WAL_SEGMENT_SIZE,
  systemId: 7012345678901234567n,
};

/** Produces records one after the other, as a Postgres would. */
export class TestWal {
  readonly start: Lsn;
  readonly #writer: WalWriter;
  #previous: Lsn;

  constructor(start: Lsn, previous: Lsn = (start - 8) as Lsn, identity = TEST_IDENTITY) {
    this.start = start;
    this.#previous = previous;
    this.#writer = new WalWriter(start, identity);
  }

  /** End of the last record. */
  get end(): Lsn {
    return this.#writer.end;
  }

  /** Appends records with `mainBytes` of payload each; returns the bytes that this added. */
  append(count: number, mainBytes: number, fill = 7): Uint8Array {
    const before = this.#writer.end;
    for (let i = 0; i < count; i++) {
      const main = new Uint8Array(mainBytes).fill(fill + i);
      const record = buildRecord({
        rmid: Rmgr.LOGICALMSG,
        info: 0,
        previous: this.#previous,
        main,
      });
      this.#previous = this.#writer.append(record);
    }
    return this.bytes(before);
  }

  /** A copy of the WAL from `from` to the end. */
  bytes(from: Lsn = this.start): Uint8Array {
    return this.#writer.bytes().slice(from - this.start);
  }
}

/** Where nothing is slow, and nothing survives a reboot. */
export const MEMORY_DIRECTORY = "/dev/shm";

/** Runs `body` with a directory that is removed afterwards; in `parent` if that exists. */
export async function withDirectory(
  body: (path: string) => Promise<void> | void,
  parent?: string,
): Promise<void> {
  const isThere = parent !== undefined && ifThere(() => Deno.statSync(parent)) !== undefined;
  const options = { prefix: "safekeeper_test_" };
  const path = Deno.makeTempDirSync(isThere ? { ...options, dir: parent } : options);
  try {
    await body(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

/** A proposer's end of a connection, one message at a time. */
export class TestProposer {
  readonly #client: PgClient;
  readonly #copy: CopyBoth;

  private constructor(client: PgClient, copy: CopyBoth) {
    this.#client = client;
    this.#copy = copy;
  }

  /** Connects to host:port. */
  static async connect(address: string): Promise<TestProposer> {
    const client = await connectTo(address, {});
    return new TestProposer(client, await client.copyBoth(START_WAL_PUSH_COMMAND));
  }

  send(...messages: ProposerMessage[]): Promise<void> {
    for (const message of messages) {
      this.#copy.queue(
        message.kind === "append" ? encodeAppendRequest(message) : encodeProposerMessage(message),
      );
    }
    return this.#copy.flush();
  }

  /** Sends the greeting of the test cluster; its answer. */
  async greet(
    tenantId: TenantId,
    timelineId: TimelineId,
    walSegmentSize = TEST_IDENTITY.segmentSize,
  ): Promise<AcceptorGreeting> {
    await this.send({
      kind: "greeting",
      tenantId,
      timelineId,
      membership: NO_MEMBERSHIP,
      pgVersionNum: 170011,
      systemId: TEST_IDENTITY.systemId,
      walSegmentSize,
    });
    return await this.receive("greeting");
  }

  /** The next answer, which must be of this kind. */
  async receive<K extends AcceptorMessage["kind"]>(
    kind: K,
  ): Promise<Extract<AcceptorMessage, { kind: K }>> {
    const payload = await this.#copy.receive();
    if (payload === undefined) throw new Error("the safekeeper closed the connection");
    const message = decodeAcceptorMessage(payload);
    if (message.kind !== kind) throw new Error(`expected ${kind}, got ${message.kind}`);
    return message as Extract<AcceptorMessage, { kind: K }>;
  }

  close(): void {
    this.#client.close();
  }
}

/** A client connection to host:port. */
export function connectTo(
  address: string,
  parameters: Readonly<Record<string, string>>,
): Promise<PgClient> {
  return PgClient.connect(parseAddress(address), {
    user: "test",
    database: "replication",
    ...parameters,
  });
}

/** Configures safekeeper 7 on free ports. */
export function writeConfig(directory: string): void {
  Deno.writeTextFileSync(
    `${directory}/safekeeper.toml`,
    'id = 7\nlisten_pg_addr = "127.0.0.1:0"\nlisten_http_addr = "127.0.0.1:0"\n' +
      'broker_endpoint = "http://127.0.0.1:1"\n', // there is none: nothing else may suffer
  );
}

/** The safekeeper as a process of its own, under narrow permissions. */
export class Daemon {
  readonly pg: string;
  readonly http: SafekeeperClient;
  readonly #child: Deno.ChildProcess;
  readonly #log: ReadableStreamDefaultReader<string>;

  private constructor(
    child: Deno.ChildProcess,
    log: ReadableStreamDefaultReader<string>,
    pg: string,
    http: string,
  ) {
    this.#child = child;
    this.#log = log;
    this.pg = pg;
    this.http = new SafekeeperClient(http);
  }

  /** What it is permitted in earnest, without remote storage. */
  private static permissions(directory: string): string[] {
    const addon = crc32AddonPath();
    return [
      "--no-prompt",
      "--cached-only",
      `--allow-read=${directory}`,
      `--allow-write=${directory}`,
      "--allow-net=127.0.0.1",
      "--allow-env=GRPC_*,grpc_proxy,http_proxy,https_proxy,no_grpc_proxy,no_proxy",
      ...(addon === undefined ? [] : [`--allow-ffi=${addon}`]),
    ];
  }

  private static spawn(directory: string, permissions: string[]): Deno.ChildProcess {
    const main = join(import.meta.dirname!, "main.ts");
    return new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", ...permissions, main, "-D", directory],
      stderr: "piped",
      stdout: "null",
    }).spawn();
  }

  /**
   * Runs it on `directory`; resolves once it says where it listens, throws what it printed if it
   * ends.
   */
  static async start(
    directory: string,
    permissions = Daemon.permissions(directory),
  ): Promise<Daemon> {
    const child = Daemon.spawn(directory, permissions);
    const log = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await log.read();
      if (done) throw new Error(`the safekeeper did not start: ${text}`);
      text += value;
      const match = /serves WAL at (\S+), HTTP at (\S+)/.exec(text);
      if (match !== null) return new Daemon(child, log, match[1]!, match[2]!);
    }
  }

  /** Ends it and waits. */
  async end(signal: "SIGKILL" | "SIGTERM" | "SIGQUIT"): Promise<Deno.CommandStatus> {
    this.#child.kill(signal);
    while (!(await this.#log.read()).done);
    return await this.#child.status;
  }
}
