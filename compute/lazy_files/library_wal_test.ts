/**
 * The library where Postgres syncs its WAL: a program under it, and a host that the test plays,
 * message by message.
 */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { WAL_SEGMENT_SIZE } from "../../libs/postgres/constants.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { closeQuietly, readWhole } from "../../libs/utils/sockets.ts";
import { until, within } from "../../tests/support/waiting.ts";
import { readArenaWal } from "./arena.ts";
import { hasCompiler, IS_EMULATED, ProbeSite } from "./probe_fixture.ts";

const HAS_COMPILER = hasCompiler();
const SEGMENT = "pg_wal/000000010000000300000045";
const SEGMENT_START = 3 * 2 ** 32 + 0x45 * WAL_SEGMENT_SIZE;
const OTHER_FILE = "base/1/1000";
/** Where the WAL section of an arena has its key. */
const ARENA_KEY_AT = 640;

/** A request, or its answer. */
interface Flush {
  readonly end: number;
  readonly number: number;
}

/** The host's end of a connection. */
class Channel implements Disposable {
  readonly #connection: Deno.Conn;
  readonly hello: Uint8Array;

  constructor(connection: Deno.Conn, hello: Uint8Array) {
    this.#connection = connection;
    this.hello = hello;
  }

  /** The next request; undefined when there will be none. */
  async request(): Promise<Flush | undefined> {
    const bytes = new Uint8Array(16);
    // A program that ends leaves its last answer unread, which resets the connection
    const reading = readWhole(this.#connection, bytes).catch((thrown) => {
      if (thrown instanceof Deno.errors.ConnectionReset) return false;
      throw thrown;
    });
    if (!await within("a request", reading)) return undefined;
    const view = new DataView(bytes.buffer);
    return { end: Number(view.getBigUint64(0, true)), number: Number(view.getBigUint64(8, true)) };
  }

  /** Sends an answer, or the first `count` bytes of it. */
  async answer({ end, number }: Flush, count = 16): Promise<void> {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(end), true);
    view.setBigUint64(8, BigInt(number), true);
    equal(await this.#connection.write(bytes.subarray(0, count)), count);
  }

  /** Answers the next request, which is to be this one. */
  async expect(request: Flush): Promise<void> {
    deepEqual(await this.request(), request);
    await this.answer(request);
  }

  [Symbol.dispose](): void {
    closeQuietly(this.#connection);
  }
}

/** Listens where the arena says. */
class Host implements Disposable {
  readonly #listener: Deno.Listener;

  constructor(path: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
  }

  async accept(): Promise<Channel> {
    const connection = await within("a connection", this.#listener.accept());
    const hello = new Uint8Array(24);
    ok(await readWhole(connection, hello));
    return new Channel(connection, hello);
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }
}

/** A program, and where it looks for the host. */
class WalSite implements AsyncDisposable {
  readonly #directory = Deno.makeTempDirSync({ prefix: "lazy-wal-" });
  readonly socket = `${this.#directory}/socket`;
  readonly key = Uint8Array.from({ length: 16 }, (_, i) => 200 + i);
  readonly probe: ProbeSite;

  constructor(isSent = true) {
    const { socket, key } = this;
    const wal = isSent ? { socket, key, segmentBytes: WAL_SEGMENT_SIZE } : undefined;
    this.probe = new ProbeSite("wal_probe.c", [{ blocks: 10 }], { wal });
    Deno.mkdirSync(`${this.probe.pgdata}/pg_wal`);
  }

  /** Name of a file that the program is to make. */
  path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  has(name: string): boolean {
    return ifThere(() => Deno.statSync(this.path(name))) !== undefined;
  }

  async number(name: string): Promise<number> {
    return await until(
      `${name} exists`,
      () => this.has(name) && Number(Deno.readTextFileSync(this.path(name))),
    );
  }

  /** Runs the program, all steps of which are to succeed. */
  succeeds(...steps: string[]): Promise<void> {
    const success = this.#succeeds(steps);
    success.catch(() => {}); // who waits for it sees it
    return success;
  }

  async #succeeds(steps: string[]): Promise<void> {
    const { code, lines, log } = await within("the program", this.probe.run(...steps));
    deepEqual({ code, log, failed: lines.filter((line) => line !== "ok") }, {
      code: 0,
      log: "",
      failed: [],
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.probe[Symbol.asyncDispose]();
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

function walTest(name: string, body: () => Promise<void>, ignore = false): void {
  Deno.test({ name: `lazy file library: ${name}`, ignore: ignore || !HAS_COMPILER, fn: body });
}

const WRITE = `pwrite,${SEGMENT},0,8192`;
const SYNC = `fdatasync,${SEGMENT}`;
const FIRST: Flush = { end: SEGMENT_START + 8192, number: 1 };

walTest("a sync of WAL waits until the host has answered", async () => {
  await using site = new WalSite();
  using host = new Host(site.socket);
  const running = site.succeeds(
    `pwrite,${SEGMENT},16384,8192`,
    SYNC,
    `number,${site.path("after")}`,
    `vector,${SEGMENT},24576,65536`,
    `pwrite,${SEGMENT},0,8192`, // what is written below counts no less
    `duplicate,${SEGMENT}`,
    SYNC, // nothing new
  );
  using channel = await host.accept();
  const hello = new Uint8Array([...new TextEncoder().encode("NWAL"), 1, 0, 0, 0, ...site.key]);
  deepEqual(channel.hello, hello);
  const first = { end: SEGMENT_START + 24576, number: 1 };
  deepEqual(await channel.request(), first);
  await site.succeeds(`fsync,${SEGMENT}`); // this takes a while
  ok(!site.has("after"));
  deepEqual(readArenaWal(site.probe.arenaPath).flushed, 0);
  await channel.answer(first);
  const end = SEGMENT_START + 24576 + 65536;
  await channel.expect({ end, number: 2 });
  await channel.expect({ end, number: 3 });
  await running;
  ok(site.has("after"));
  const { written, flushed, key } = readArenaWal(site.probe.arenaPath);
  deepEqual([written, flushed, key], [end, end, site.key]);
  equal(await channel.request(), undefined);
});

walTest("other syncs return at once", async () => {
  await using site = new WalSite();
  using host = new Host(site.socket);
  const others = ["pg_wal/xlogtemp.7", `${SEGMENT}.partial`, "pg_wal/0000000100000003", "file"];
  const running = site.succeeds(
    ...others.flatMap((file) => [`pwrite,${file},0,8192`, `fdatasync,${file}`]),
    `pwrite,${SEGMENT},0,0`,
    SYNC, // no WAL has been written
    WRITE,
    `fsync,${SEGMENT}`, // as where a segment is made or recycled, beside one that waits
    `syncfs,${SEGMENT}`,
    ...[OTHER_FILE, ...others].flatMap((file) => [`fsync,${file}`, `fdatasync,${file}`]),
  );
  using channel = await host.accept();
  equal(await channel.request(), undefined);
  await running;
});

walTest("forked processes share one connection", async () => {
  await using site = new WalSite();
  using host = new Host(site.socket);
  const running = site.succeeds(WRITE, `children,3,${SEGMENT}`, SYNC);
  using channel = await host.accept();
  for (const number of [1, 2, 3, 4]) await channel.expect({ ...FIRST, number });
  equal(await channel.request(), undefined);
  await running;
});

walTest("a request without its answer is sent again over a new connection", async () => {
  await using site = new WalSite();
  using host = new Host(site.socket);
  const running = site.succeeds(WRITE, SYNC, SYNC);
  const breaks: ((channel: Channel) => Promise<void>)[] = [
    async () => {},
    async (channel) => await channel.answer(FIRST, 8),
    async (channel) => await channel.answer({ ...FIRST, end: FIRST.end - 8192 }),
    async (channel) => await channel.answer({ ...FIRST, number: 0 }), // of an earlier request
  ];
  for (const spoil of breaks) {
    using channel = await host.accept();
    deepEqual(await channel.request(), FIRST);
    await spoil(channel);
  }
  using channel = await host.accept();
  await channel.expect(FIRST);
  await channel.expect({ ...FIRST, number: 2 });
  await running;
});

walTest("without a host a sync waits for one", async () => {
  await using site = new WalSite();
  const running = site.succeeds(WRITE, `number,${site.path("started")}`, SYNC);
  await site.number("started");
  using host = new Host(site.socket);
  using channel = await host.accept();
  await channel.expect(FIRST);
  await running;
});

/** Whether the process is there, and not as a zombie. */
function isAlive(pid: number): boolean {
  const stat = ifThere(() => Deno.readTextFileSync(`/proc/${pid}/stat`));
  return stat !== undefined && !/^\d+ \(.*\) [ZX]/.test(stat);
}

walTest("who waits for a host ends with the postmaster, and ends the others", async () => {
  await using site = new WalSite();
  await using elsewhere = new WalSite(); // another Postgres
  const bystander = new Deno.Command("sleep", { args: ["60"], cwd: site.probe.pgdata }).spawn();
  const host = new Host(site.socket);
  const other = elsewhere.probe.run(`number,${elsewhere.path("other")}`, WRITE, SYNC);
  const running = site.probe.run(
    `idle,${site.path("idle")}`,
    `number,${site.path("parent")}`,
    WRITE,
    `child,${SEGMENT},${site.path("child")}`,
  );
  const channel = await host.accept();
  deepEqual(await channel.request(), FIRST);
  const [parent, child] = [await site.number("parent"), await site.number("child")];
  const idle = await site.number("idle");
  const otherNumber = await elsewhere.number("other");
  Deno.kill(parent, "SIGKILL");
  await running;
  ok(isAlive(child), "a host is there, which may still answer");
  host[Symbol.dispose]();
  channel[Symbol.dispose]();
  await until("the child has ended", () => !isAlive(child));
  await until("the idle one has ended", () => !isAlive(idle));
  ok(isAlive(otherNumber));
  ok(isAlive(bystander.pid), "it is another program");
  bystander.kill("SIGKILL");
  await bystander.status;
  Deno.kill(otherNumber, "SIGKILL");
  await other;
}, IS_EMULATED); // each program is the emulator then

walTest("a signal is seen to, and the wait goes on", async () => {
  await using site = new WalSite();
  using host = new Host(site.socket);
  const running = site.succeeds(
    `signals,${site.path("caught")}`,
    `number,${site.path("program")}`,
    WRITE,
    SYNC,
    `number,${site.path("after")}`,
  );
  using channel = await host.accept();
  deepEqual(await channel.request(), FIRST);
  Deno.kill(await site.number("program"), "SIGTERM");
  await until("the signal was caught", () => site.has("caught"));
  await site.succeeds(`fsync,${SEGMENT}`); // this takes a while
  ok(!site.has("after"));
  await channel.answer(FIRST);
  equal(await channel.request(), undefined);
  await running;
  ok(site.has("after"));
});

walTest("an arena whose WAL section is damaged is refused", async () => {
  await using site = new WalSite();
  using arena = Deno.openSync(site.probe.arenaPath, { read: true, write: true });
  arena.seekSync(ARENA_KEY_AT, Deno.SeekMode.Start);
  arena.writeSync(new Uint8Array([0]));
  const { code, lines, log } = await site.probe.run(WRITE, SYNC);
  deepEqual([code, lines], [70, []]);
  match(log, /cannot run: the arena's WAL channel fails its checksum/);
});

walTest("without a socket in the arena a sync of WAL returns at once", async () => {
  await using site = new WalSite(false);
  await site.succeeds(WRITE, SYNC, `vector,${SEGMENT},8192,8192`, SYNC);
  equal(readArenaWal(site.probe.arenaPath).written, 0);
});
