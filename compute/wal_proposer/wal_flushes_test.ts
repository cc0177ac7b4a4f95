/**
 * WAL that Postgres says it syncs, from its files to real safekeepers: over the host's real socket,
 * as the preloaded library speaks there.
 */
import assert from "node:assert/strict";
import { PAGE_SIZE, Rmgr, WAL_SEGMENT_SIZE, XlogInfo } from "../../libs/postgres/constants.ts";
import { buildRecord, WalWriter } from "../../libs/postgres/wal/record_builder.ts";
import {
  pageEndAfter,
  segmentName,
  segmentNumber,
  segmentStart,
} from "../../libs/postgres/wal/segment.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { readWhole } from "../../libs/utils/sockets.ts";
import { TEST_IDENTITY, withDirectory } from "../../safekeeper/safekeeper_fixture.ts";
import { until, within } from "../../tests/support/waiting.ts";
import { LocalWal } from "../local_wal.ts";
import { WalChannels } from "../wal_channels.ts";
import { Acknowledgement } from "./acknowledgement.ts";
import type { LagLimits } from "./backpressure.ts";
import type { WalProposer } from "./driver.ts";
import { START, WAIT_MS, withCluster } from "./safekeepers_fixture.ts";
import { WalFlushes } from "./wal_flushes.ts";

const MIB = 1024 * 1024;
const UNLIMITED: LagLimits = { write: Infinity, flush: Infinity, apply: Infinity };
const MAGIC = 0x4c41574e;

/** A Postgres's pg_wal, written to as XLogWrite does: whole pages. */
class Files {
  readonly #directory: string;
  readonly #writer = new WalWriter(START, TEST_IDENTITY);
  #previous = addLsn(START, -8);

  constructor(pgdata: string) {
    this.#directory = `${pgdata}/pg_wal`;
    Deno.mkdirSync(this.#directory, { recursive: true });
  }

  /** End of the last record. */
  get end(): Lsn {
    return this.#writer.end;
  }

  bytes(): Uint8Array {
    return this.#writer.bytes();
  }

  /** Adds records of so many bytes, and writes them; returns the end of the last page. */
  write(count: number, mainBytes: number): Lsn {
    const from = this.end;
    for (let i = 0; i < count; i++) {
      const main = new Uint8Array(mainBytes).fill(1 + i % 250);
      const parts = { rmid: Rmgr.LOGICALMSG, info: 0, previous: this.#previous, main };
      this.#previous = this.#writer.append(buildRecord(parts));
    }
    return this.#flush(from);
  }

  /** Adds an XLOG_SWITCH, and writes it and the padding. */
  switchSegment(): Lsn {
    const from = this.end;
    const parts = { rmid: Rmgr.XLOG, info: XlogInfo.SWITCH, previous: this.#previous };
    this.#previous = this.#writer.append(buildRecord(parts));
    const next = segmentNumber(this.end, WAL_SEGMENT_SIZE) + 1;
    this.#writer.padTo(segmentStart(next, WAL_SEGMENT_SIZE));
    return this.#flush(from);
  }

  #flush(from: Lsn): Lsn {
    const wal = this.#writer.bytes();
    const end = pageEndAfter(this.end);
    for (let at: number = from; at < end;) {
      const limit = Math.min(end, at - at % WAL_SEGMENT_SIZE + WAL_SEGMENT_SIZE);
      const part = new Uint8Array(limit - at);
      part.set(wal.subarray(at - START, limit - START));
      using file = Deno.openSync(this.path(at as Lsn), { write: true, create: true });
      file.seekSync(at % WAL_SEGMENT_SIZE, Deno.SeekMode.Start);
      file.writeSync(part);
      at = limit;
    }
    return end;
  }

  path(lsn: Lsn): string {
    const segment = segmentNumber(lsn, WAL_SEGMENT_SIZE);
    return `${this.#directory}/${segmentName(1, segment, WAL_SEGMENT_SIZE)}`;
  }
}

/** The library's end of a connection. */
class Library implements Disposable {
  readonly #connection: Deno.Conn;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  static async connect(path: string, key: Uint8Array, magic = MAGIC, version = 1) {
    const library = new Library(await Deno.connect({ transport: "unix", path }));
    const hello = new Uint8Array([...new Uint8Array(8), ...key]);
    const view = new DataView(hello.buffer);
    view.setUint32(0, magic, true);
    view.setUint32(4, version, true);
    await library.#connection.write(hello);
    return library;
  }

  async ask(end: number, number: number): Promise<void> {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(end), true);
    view.setBigUint64(8, BigInt(number), true);
    await this.#connection.write(bytes);
  }

  /** The next answer; undefined if the host has closed the connection instead. */
  async answer(): Promise<[end: number, number: number] | undefined> {
    const bytes = new Uint8Array(16);
    const reading = readWhole(this.#connection, bytes).catch((thrown) => {
      if (thrown instanceof Deno.errors.ConnectionReset) return false;
      throw thrown;
    });
    if (!await within("an answer", reading)) return undefined;
    const view = new DataView(bytes.buffer);
    return [Number(view.getBigUint64(0, true)), Number(view.getBigUint64(8, true))];
  }

  /** Asks, and is answered. */
  async flush(end: number, number: number): Promise<void> {
    await this.ask(end, number);
    assert.deepEqual(await this.answer(), [end, number]);
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }
}

type Cluster = Parameters<Parameters<typeof withCluster>[0]>[0];

/** A compute host's part, with a Postgres of which there are only the files. */
interface Site {
  readonly cluster: Cluster;
  readonly proposer: WalProposer;
  readonly acknowledgement: Acknowledgement;
  readonly channels: WalChannels;
  readonly flushes: WalFlushes;
  readonly files: Files;
  readonly socket: string;
  readonly key: Uint8Array;
  connect(): Promise<Library>;
}

async function withSite(body: (site: Site) => Promise<void>, limits = UNLIMITED): Promise<void> {
  await withCluster((cluster) =>
    withDirectory(async (directory) => {
      const channels = new WalChannels(`${directory}/socket`);
      const { socket, key } = channels.newAddress();
      const files = new Files(directory);
      const proposer = cluster.propose();
      await proposer.elected(WAIT_MS);
      const acknowledgement = new Acknowledgement(proposer, limits);
      const flushes = new WalFlushes(new LocalWal(directory), proposer, acknowledgement);
      channels.register(key, (connection) => flushes.serve(connection));
      const connect = () => Library.connect(socket, key);
      const parts = { cluster, proposer, acknowledgement, channels, flushes, files, socket, key };
      try {
        await body({ ...parts, connect });
      } finally {
        channels.close();
        acknowledgement.stop();
        flushes.stop();
        await proposer.stop();
      }
    })
  );
}

/** Waits until so much has been taken from the files. */
async function taken(proposer: WalProposer, end: Lsn): Promise<void> {
  await until(`WAL is taken up to ${end}`, () => proposer.endLsn >= end);
}

Deno.test("WAL is taken page by page and in jumps, and answered when a quorum has it", async () => {
  await withSite(async ({ cluster, proposer, files, connect }) => {
    using library = await connect();
    let number = 0;
    const sync = async (end: Lsn) => {
      await library.flush(end, ++number);
      assert.ok(proposer.commitLsn >= files.end, "a quorum has it");
      assert.equal(proposer.endLsn, files.end);
    };
    for (let i = 0; i < 10; i++) await sync(files.write(1, 10)); // on the same page
    await sync(pageEndAfter(files.end)); // nothing new
    for (let i = 0; i < 10; i++) await sync(files.write(1, 3000));
    await sync(files.write(1, 100_000)); // passes through pages
    await sync(files.write(30, 100_000));
    await sync(files.write(2, 7 * MIB)); // beyond the segment
    await sync(files.write(1, 10));
    for (const id of [1, 2, 3]) await cluster.reaches(id, files.end);
    const name = segmentName(1, segmentNumber(START, WAL_SEGMENT_SIZE), WAL_SEGMENT_SIZE);
    const from = START % WAL_SEGMENT_SIZE;
    const stored = Deno.readFileSync(cluster.segmentPath(1, name)).subarray(from);
    assert.ok(stored.length > 0);
    assert.deepEqual(stored, files.bytes().subarray(0, stored.length));
  });
});

Deno.test("a segment that is switched is taken with its padding, and WAL goes on behind", async () => {
  await withSite(async ({ proposer, files, connect }) => {
    using library = await connect();
    await library.flush(files.write(3, 1000), 1);
    const page = pageEndAfter(files.end);
    files.switchSegment();
    await library.flush(page, 2);
    await library.flush(addLsn(page, 3 * PAGE_SIZE), 3);
    await library.flush(files.end, 4);
    assert.equal(proposer.commitLsn, files.end);
    await library.flush(files.write(3, 1000), 5);
    assert.equal(proposer.commitLsn, files.end);
  });
});

Deno.test("without a quorum nothing is answered; when there is one again, it is", async () => {
  await withSite(async ({ cluster, proposer, files, connect }) => {
    using library = await connect();
    await library.flush(files.write(3, 100), 1);
    const committed = files.end;
    await cluster.stop(1);
    await library.flush(files.write(3, 100), 2); // two are a quorum
    const before = files.end;
    await cluster.stop(2);
    const end = files.write(3, 100);
    await library.ask(end, 3);
    await cluster.reaches(3, files.end); // one has it
    assert.ok(before > committed);
    assert.equal(proposer.commitLsn, before);
    let isAnswered = false;
    const answer = library.answer().finally(() => isAnswered = true);
    await assert.rejects(proposer.committed(files.end, 300), /Cannot commit/);
    assert.equal(isAnswered, false);
    await cluster.start(2);
    assert.deepEqual(await answer, [end, 3]);
    assert.ok(proposer.commitLsn >= files.end);
  });
});

Deno.test("who does not know the protocol or a key is refused, and nobody else notices", async () => {
  await withSite(async ({ files, connect, socket, key }) => {
    using library = await connect();
    using silent = await Deno.connect({ transport: "unix", path: socket });
    await silent.write(new Uint8Array(10)); // and no more
    const wrong = [
      await Library.connect(socket, key, 0x4c41574d),
      await Library.connect(socket, key, MAGIC, 2),
      await Library.connect(socket, key.map((byte) => byte ^ 1)),
    ];
    await library.flush(files.write(3, 100), 1);
    for (const refused of wrong) {
      using connection = refused;
      assert.equal(await connection.answer(), undefined);
    }
    await library.flush(files.write(3, 100), 2);
    assert.equal(await within("the end of the silent one", silent.read(new Uint8Array(1))), null);
    await library.flush(files.write(3, 100), 3);
  });
});

Deno.test("a key that is not registered any more is refused", async () => {
  await withSite(async ({ channels, files, connect, key }) => {
    using library = await connect();
    await library.flush(files.write(1, 100), 1);
    channels.unregister(key);
    using late = await connect();
    assert.equal(await late.answer(), undefined);
    await library.flush(files.write(1, 100), 2); // one that is served goes on
  });
});

Deno.test("two connections ask for the same and for other WAL, each is answered its own", async () => {
  await withSite(async ({ proposer, files, connect }) => {
    using first = await connect();
    using second = await connect();
    const end = files.write(20, 100_000);
    const [middle, early] = [addLsn(end, -40 * PAGE_SIZE), addLsn(end, -80 * PAGE_SIZE)];
    await Promise.all([first.ask(end, 1), second.ask(middle, 2)]);
    await Promise.all([first.ask(early, 3), second.ask(end, 4)]);
    assert.deepEqual([await first.answer(), await first.answer()], [[end, 1], [early, 3]]);
    assert.deepEqual([await second.answer(), await second.answer()], [[middle, 2], [end, 4]]);
    assert.equal(proposer.commitLsn, files.end);
  });
});

Deno.test("a request whose connection is cut is asked again over a new one", async () => {
  await withSite(async ({ cluster, proposer, files, connect }) => {
    await cluster.stop(1);
    await cluster.stop(2);
    const end = files.write(3, 100);
    const cut = await connect();
    await cut.ask(end, 1);
    await taken(proposer, files.end);
    cut[Symbol.dispose]();
    using part = await connect();
    using again = await connect();
    await again.ask(end, 1);
    await cluster.start(2);
    assert.deepEqual(await again.answer(), [end, 1]);
    await part.flush(files.write(3, 100), 2);
    assert.equal(proposer.endLsn, files.end, "nothing is taken twice");
  });
});

Deno.test("an answer waits for the pageserver as far as the limits say", async () => {
  const limits = { write: 10_000, flush: Infinity, apply: Infinity };
  await withSite(async ({ proposer, acknowledgement, files, connect, socket }) => {
    using library = await connect();
    await library.flush(files.write(3, 1000), 1);
    const end = files.write(30, 1000);
    await library.ask(end, 2);
    await proposer.committed(files.end, WAIT_MS);
    let isAnswered = false;
    const answer = library.answer().finally(() => isAnswered = true);
    using other = await connect();
    await other.ask(end, 3);
    using stranger = await Library.connect(socket, new Uint8Array(16));
    assert.equal(await stranger.answer(), undefined); // the host sees to its sockets
    assert.equal(isAnswered, false);
    assert.ok(acknowledgement.lag.commits_delayed);
    assert.ok(acknowledgement.lsn < files.end);
    acknowledgement.setLimits({ ...limits, write: 100_000 });
    assert.deepEqual(await answer, [end, 2]);
    assert.deepEqual(await other.answer(), [end, 3]);
  }, limits);
});

Deno.test("a stop ends the connection of who waits, and takes no more", async () => {
  await withSite(async ({ cluster, proposer, flushes, files, connect }) => {
    await cluster.stop(1);
    await cluster.stop(2);
    using library = await connect();
    await library.ask(files.write(3, 100), 1);
    await taken(proposer, files.end);
    const { endLsn } = proposer;
    flushes.stop();
    assert.equal(await library.answer(), undefined);
    using late = await connect();
    assert.equal(await late.answer(), undefined);
    await flushes.take(files.write(30, 100_000));
    assert.equal(proposer.endLsn, endLsn);
  });
});

Deno.test("a file that is too short or missing ends the connection, what is there stays taken", async () => {
  await withSite(async ({ proposer, files, connect }) => {
    using library = await connect();
    await library.flush(files.write(3, 1000), 1);
    const before = files.end;
    const end = files.write(10, 100_000);
    const path = files.path(before);
    const whole = Deno.readFileSync(path);
    Deno.truncateSync(path, before % WAL_SEGMENT_SIZE + 400_000);
    await library.ask(end, 2);
    assert.equal(await library.answer(), undefined);
    assert.ok(proposer.endLsn < before + 400_000);
    Deno.writeFileSync(path, whole);
    using again = await connect();
    await again.flush(end, 2);
    assert.equal(proposer.commitLsn, files.end);
    await again.ask(end + 2 * WAL_SEGMENT_SIZE, 3);
    assert.equal(await again.answer(), undefined);
    using odd = await connect();
    await odd.ask(end + 8, 4);
    assert.equal(await odd.answer(), undefined, "no page ends there");
  });
});

Deno.test("what was taken for a request that failed is waited for by the next", async () => {
  await withSite(async ({ cluster, proposer, files, connect }) => {
    using library = await connect();
    await library.flush(files.write(3, 1000), 1);
    await cluster.stop(1);
    await cluster.stop(2);
    const before = files.end;
    const end = files.write(300, 3000);
    const path = files.path(before);
    Deno.truncateSync(path, before % WAL_SEGMENT_SIZE + 400_000);
    await library.ask(end, 2);
    assert.equal(await library.answer(), undefined);
    const early = addLsn(pageEndAfter(before), 20 * PAGE_SIZE);
    assert.ok(proposer.endLsn > early);
    using again = await connect();
    await again.ask(early, 3);
    const answered = again.answer().then(() => proposer.commitLsn);
    await cluster.start(2);
    assert.ok(await answered > addLsn(early, -2 * PAGE_SIZE));
  });
});
