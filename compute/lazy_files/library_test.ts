import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { toLsn } from "../../libs/utils/lsn.ts";
import { until } from "../../tests/support/waiting.ts";
import { updateArena, updateArenaToken } from "./arena.ts";
import { PageServiceFixture } from "./page_service_fixture.ts";
import {
  hasCompiler,
  IS_EMULATED,
  markedPage,
  markedPages,
  okLine,
  ProbeSite,
} from "./probe_fixture.ts";

const HAS_COMPILER = hasCompiler();
const FILE = "base/1/1000";
const zeroPage = new Uint8Array(PAGE_SIZE);
const page = (block: number) => markedPage(1000, block);

function libraryTest(name: string, body: () => Promise<void>, ignore = false): void {
  Deno.test({ name: `lazy file library: ${name}`, ignore: ignore || !HAS_COMPILER, fn: body });
}

libraryTest("a page is fetched at its first read and local from then on", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 200 }]);
  deepEqual((await site.run(`pread,${FILE},150,1`)).lines, [okLine(page(150))]);
  const { last } = site.pages;
  equal(last?.block, 150);
  equal(last?.requestLsn, 0x2000028n);
  equal(last?.notModifiedSince, 0x2000028n);
  match(site.pages.commands[0]!, /^pagestream_v3 [0-9a-f]{32} [0-9a-f]{32}$/);
  equal(site.pages.requests, 1);
  deepEqual((await site.run(`pread,${FILE},150,1`)).lines, [okLine(page(150))]);
  equal(site.pages.requests, 1);
});

libraryTest("every way to read gives the same bytes", async () => {
  const expected = okLine(page(60), page(61), page(62));
  for (const how of ["pread", "preadv", "read", "mmap", "fopen", "sendfile", "copy"]) {
    await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
    deepEqual((await site.run(`${how},${FILE},60,3`)).lines, [expected], how);
  }
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  const handles = await site.run(`handles,${FILE},40`);
  deepEqual(handles.lines, [40, 41, 42].map((block) => okLine(page(block))));
});

libraryTest(
  "a sequential reader gets up to 128 pages ahead, a random one what it asked",
  async () => {
    await using site = new ProbeSite("probe.c", [{ blocks: 5000 }]);
    await site.run(`pread,${FILE},3000,1`, `pread,${FILE},2000,1`, `pread,${FILE},1000,1`);
    equal(site.pages.requests, 3);
    await site.run(`scan,${FILE},960`); // windows of 32, 64, then 128 pages
    ok(site.statistics.fetchCalls <= 3 + 2 + 8 + 1, `${site.statistics.fetchCalls} calls`);
  },
);

/** Steps that read blocks [from, to) in order, 16 at a time, and what they print. */
function inOrder(from: number, to: number): { steps: string[]; expected: string[] } {
  const starts = Array.from({ length: (to - from) / 16 }, (_, i) => from + i * 16);
  return {
    steps: starts.map((start) => `pread,${FILE},${start},16`),
    expected: starts.map((start) =>
      okLine(...Array.from({ length: 16 }, (_, i) => page(start + i)))
    ),
  };
}

libraryTest("a sequential reader's next run is asked for ahead, each page once", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1600 }]);
  await site.run(`scan,${FILE},800`);
  const { pagesFetched } = site.statistics;
  await until("a run was asked for ahead", () => site.pages.requests > pagesFetched);
  await using whole = new ProbeSite("probe.c", [{ blocks: 1600 }]);
  const all = inOrder(0, 1600);
  deepEqual((await whole.run(`scan,${FILE},1600`, ...all.steps)).lines.slice(1), all.expected);
  equal(whole.pages.requests, 1600);
  equal(whole.statistics.pagesFetched, 1600);
});

libraryTest("a run asked for in vain is read past, whatever comes then", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 6000 }, { rel: 1001, blocks: 2000 }]);
  const [first, then] = [inOrder(0, 800), inOrder(0, 1600)];
  const { lines, log } = await site.run(
    ...[`scan,${FILE},800`, `pread,${FILE},5000,1`, "scan,base/1/1001,1600"],
    ...[...first.steps, `fork,${FILE},5500`, `scan,${FILE},1600`, ...then.steps],
  );
  equal(lines[1], okLine(page(5000)));
  deepEqual(lines.slice(3, 3 + first.expected.length), first.expected);
  deepEqual(lines.slice(-then.expected.length), then.expected);
  equal(log, "");
  equal(site.statistics.reconnects, 0);
});

libraryTest("what goes wrong ahead of a reader is nobody's error until it is read", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 3000 }], { retrySeconds: 10 });
  site.pages.hangUpAfter = 700;
  site.pages.spoil = (payload, request) => {
    if (request.block < 1600) return;
    payload[0] = 103;
    payload.fill(0, 25);
  };
  const good = inOrder(0, 1600);
  const { lines, log } = await site.run(`scan,${FILE},1600`, ...good.steps);
  deepEqual(lines.slice(1), good.expected);
  equal(log, "");
  equal(site.statistics.errors, 0);
  equal(site.pages.commands.length, 2);
  deepEqual((await site.run(`pread,${FILE},1600,16`)).lines, ["errno 5"]);
});

libraryTest("an error of the page service is EIO and a log line", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  site.pages.spoil = (payload, request) => {
    if (request.block < 20) return;
    payload[0] = 103;
    payload.fill(0, 25);
    payload.set(new TextEncoder().encode("no such\nblock\x7f\u0085!"), 25);
  };
  const { lines, log } = await site.run(`pread,${FILE},20,1`, `pread,${FILE},16,3`);
  deepEqual(lines, ["errno 5", okLine(page(16), page(17), page(18))]);
  match(log, /cannot give block 20 of relation 1663\/1\/1000 fork 0: no such block {3}!/);
  // Reading ahead into the missing part is nobody's error.
  const ahead = await site.run(...[0, 2, 4, 8].map((block) => `pread,${FILE},${block},4`));
  ok(ahead.lines.every((line) => line.startsWith("ok ")), ahead.lines.join());
  equal(ahead.log, "");
  equal(site.statistics.errors, 1);
});

libraryTest("an answer that echoes another request is never used", async () => {
  const fields = { reqid: 8, requestLsn: 16, notModifiedSince: 24, rel: 36, fork: 37, block: 41 };
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  for (const [field, offset] of Object.entries(fields)) {
    site.pages.spoil = (payload) => payload[offset]! ^= 1;
    const { lines, log } = await site.run(`pread,${FILE},50,1`);
    deepEqual(lines, ["errno 5"], field);
    match(log, /an answer does not belong to its request/);
  }
  site.pages.spoil = undefined;
  deepEqual((await site.run(`pread,${FILE},50,1`)).lines, [okLine(page(50))]);
});

libraryTest("an unreachable page service is EIO after the retry time", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }], { retrySeconds: 1 });
  await site.pages.close();
  const began = performance.now();
  const { lines, log } = await site.run(`pread,${FILE},50,1`);
  const seconds = (performance.now() - began) / 1000;
  deepEqual(lines, ["errno 5"]);
  ok(seconds > 0.9 && seconds < 3, `${seconds} s`);
  match(log, /cannot reach the page service, giving up on block 50 .*cannot connect/);
});

libraryTest("the first requests go out with the start of a connection", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const pageserver = { host: "127.0.0.1", port };
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }], { pageserver });
  const running = site.run(`pread,${FILE},50,3`);
  const sent = new Uint8Array(4096);
  using connection = await listener.accept();
  let length = 0;
  const requests = () =>
    new TextDecoder("latin1").decode(sent.subarray(0, length)).split("d\0\0\0.")
      .length - 1;
  while (requests() < 3) {
    const count = await connection.read(sent.subarray(length));
    if (count === null) break;
    length += count;
  }
  equal(requests(), 3); // of 46 bytes, and nothing was answered
  connection.close();
  deepEqual((await running).lines, ["errno 5"]);
});

libraryTest("a lost connection is made again", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1000 }], { retrySeconds: 10 });
  site.pages.hangUpAfter = 100;
  const steps = Array.from({ length: 20 }, (_, i) => `pread,${FILE},${i * 16},16`);
  const { lines } = await site.run(...steps);
  ok(lines.every((line) => line.startsWith("ok ")));
  equal(site.statistics.reconnects, 1);
  equal(site.pages.commands.length, 2);
});

libraryTest("a forked process has a connection of its own", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  const { lines } = await site.run(
    `pread,${FILE},10,1`,
    `fork,${FILE},30`,
    `pread,${FILE},50,1`,
  );
  deepEqual(lines, [10, 30, 50].map((block) => okLine(page(block))));
  equal(site.pages.commands.length, 2);
});

libraryTest("settings change while it runs: another server, a later request LSN", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  const second = new PageServiceFixture(markedPages);
  const signal = `${site.directory}/go`;
  const running = site.run(`pread,${FILE},10,1`, `await,${signal}`, `pread,${FILE},50,1`);
  while (site.pages.requests === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  updateArena(site.arenaPath, { pageserver: second.address, requestLsn: toLsn(0x3000000) });
  Deno.writeTextFileSync(signal, "");
  deepEqual((await running).lines, [okLine(page(10)), "ok", okLine(page(50))]);
  equal(second.last?.block, 50);
  equal(second.last?.requestLsn, 0x3000000n);
  equal(second.last?.notModifiedSince, 0x2000028n);
  await second.close();
});

libraryTest(
  "the arena's token is shown to a page service that wants one, also a later one",
  async () => {
    const token = "eyJhbGciOiJFZERTQSJ9." + "x".repeat(978);
    await using wanting = new PageServiceFixture(markedPages, token);
    const pageserver = wanting.address;
    await using site = new ProbeSite("probe.c", [{ blocks: 100 }], { pageserver, retrySeconds: 1 });
    const none = await site.run(`pread,${FILE},10,1`);
    deepEqual(none.lines, ["errno 5"]);
    match(none.log, /the page service wants a token, and there is none/);
    updateArenaToken(site.arenaPath, "eyJ.wrong.one");
    const wrong = await site.run(`pread,${FILE},10,1`);
    deepEqual(wrong.lines, ["errno 5"]);
    match(wrong.log, /the page service says: Cannot authenticate: that is another token/);
    ok(!wrong.log.includes("eyJ"), wrong.log);
    equal(wanting.tokens.at(-1), "eyJ.wrong.one");
    updateArenaToken(site.arenaPath, token);
    const right = await site.run(`pread,${FILE},10,1`);
    deepEqual([right.lines, right.log], [[okLine(page(10))], ""]);
    equal(wanting.tokens.at(-1), token);
    throws(() => updateArenaToken(site.arenaPath, token + "xx"), /at most 1000/);
    equal(Deno.statSync(site.arenaPath).mode! & 0o777, 0o600);
    // To one that wants none it is no harm
    updateArena(site.arenaPath, { pageserver: site.pages.address });
    deepEqual((await site.run(`pread,${FILE},50,1`)).lines, [okLine(page(50))]);
  },
);

libraryTest("whole pages are overwritten unread, parts of pages are fetched first", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  const whole = new Uint8Array(PAGE_SIZE).fill(0x77);
  const part = page(30);
  part.fill(0x77, 100, 300);
  const { lines } = await site.run(
    `pwrite,${FILE},${50 * PAGE_SIZE},${2 * PAGE_SIZE}`,
    `pread,${FILE},50,2`,
    `pwrite,${FILE},${30 * PAGE_SIZE + 100},200`,
    `pread,${FILE},30,1`,
  );
  deepEqual(lines, [`ok ${2 * PAGE_SIZE}`, okLine(whole, whole), "ok 200", okLine(part)]);
  equal(site.pages.requests, 1);
  equal(site.statistics.absentWrites, 2);
});

libraryTest("what a truncation cut off never comes back", async () => {
  for (const how of ["truncate", "ftruncate"]) {
    await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
    const { lines } = await site.run(
      `${how},${FILE},40`,
      `pread,${FILE},39,2`,
      `pwrite,${FILE},${60 * PAGE_SIZE},${PAGE_SIZE}`,
      `pread,${FILE},45,1`,
    );
    deepEqual(lines, ["ok", okLine(page(39)), `ok ${PAGE_SIZE}`, okLine(zeroPage)]);
    equal(site.statistics.truncations, 1);
  }
});

/** The word with which a process claims a page (claims.c). */
function claimOf(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\) /s, "").split(" ");
  let hash = 0;
  for (const digit of fields[19]!) hash = (Math.imul(hash, 31) + digit.charCodeAt(0)) >>> 0;
  const tag = (hash ^ (hash >>> 9) ^ (hash >>> 18)) & 0x1ff;
  return (0x80000000 | (tag << 22) | pid) >>> 0;
}

/** The arena of a site with one file: its only entry and its page words (arena.h). */
class ArenaWords {
  readonly #file: Deno.FsFile;
  readonly #entryOffset = 4096;
  readonly #wordsOffset = 4096 + 32 + 16 * 4;

  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true, write: true });
  }

  #write(offset: number, value: number): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    this.#file.writeSync(new Uint8Array(new Uint32Array([value]).buffer));
  }

  put(page: number, word: number): void {
    this.#write(this.#wordsOffset + page * 4, word);
  }

  putBase(base: number): void {
    this.#write(this.#entryOffset + 20, base);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

libraryTest("who reads on where others fill brings what is behind meanwhile", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1600 }]);
  using arena = new ArenaWords(site.arenaPath);
  const claimed = [20, 21, 22, 23];
  for (const block of claimed) arena.put(block, claimOf(Deno.pid));
  const all = inOrder(0, 1600);
  const reading = site.run(...all.steps);
  // It waits then, but for as many pages as it may bring meanwhile
  await until("it brought what is behind", () => site.statistics.waits > 0);
  equal(site.pages.requests, 16 + 4 + 1024 - 4);
  for (const block of claimed) arena.put(block, 0); // who filled them has failed
  const { lines, log } = await reading;
  deepEqual(lines, all.expected);
  equal(log, "");
  equal(site.pages.requests, 1600);
  equal(site.statistics.waits, 1);
});

libraryTest("what cannot be brought meanwhile keeps nobody from a page that is there", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1600 }], { retrySeconds: 30 });
  using arena = new ArenaWords(site.arenaPath);
  const claimed = Array.from({ length: 16 }, (_, i) => 16 + i);
  for (const block of claimed) arena.put(block, claimOf(Deno.pid));
  const signal = `${site.directory}/go`;
  const reading = site.run(`scan,${FILE},16`, `await,${signal}`, `pread,${FILE},16,16`);
  await until("the first pages are there", () => site.statistics.pagesFetched === 16);
  await site.pages.close();
  Deno.writeTextFileSync(signal, "");
  await until("it waits", () => site.statistics.waits > 0);
  const began = performance.now();
  for (const block of claimed) arena.put(block, 1); // filled, as far as the reader can see
  deepEqual((await reading).lines, ["ok", "ok", okLine(...claimed.map(() => zeroPage))]);
  ok(performance.now() - began < 10_000);
});

libraryTest("one that reads here and there waits for who fills a page", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1600 }]);
  using arena = new ArenaWords(site.arenaPath);
  arena.put(20, claimOf(Deno.pid));
  const reading = site.run(`pread,${FILE},20,1`);
  await until("it waits", () => site.statistics.waits > 0);
  arena.put(20, 0);
  deepEqual((await reading).lines, [okLine(page(20))]);
  equal(site.pages.requests, 1);
});

libraryTest(
  "a truncation waits for who fills pages, also after one that died waiting",
  async () => {
    await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
    using arena = new ArenaWords(site.arenaPath);
    arena.putBase(40); // as that one has lowered it
    arena.put(41, claimOf(Deno.pid)); // who fills is alive: this process
    const cutting = site.run(`ftruncate,${FILE},40`);
    let isOver = false;
    cutting.then(() => isOver = true);
    while (!isOver && site.statistics.waits === 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    equal(isOver, false);
    arena.put(41, 1);
    deepEqual((await cutting).lines, ["ok"]);
    equal(site.statistics.steals, 0);
  },
);

libraryTest("a file that is made anew under an old name is local", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  const { lines } = await site.run(
    `create,${FILE}`,
    `unlink,${FILE}`,
    `create,${FILE}`,
    `pwrite,${FILE},${3 * PAGE_SIZE},${PAGE_SIZE}`,
    `pread,${FILE},1,1`,
  );
  deepEqual(lines, ["errno 17", "ok", "ok", `ok ${PAGE_SIZE}`, okLine(zeroPage)]);
  equal(site.pages.requests, 0);
});

libraryTest("tablespaces and new names of lazy files are refused", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 10 }]);
  const { lines, log } = await site.run(
    "symlink,pg_tblspc/16400",
    `symlink,${site.pgdata}/pg_tblspc/16400`,
    "mkdir,pg_tblspc/16401",
    "symlink,elsewhere",
    "mkdir,base/2",
    `rename,${FILE},base/1/1001`,
  );
  deepEqual(lines, ["errno 1", "errno 1", "errno 1", "ok", "ok", "errno 5"]);
  match(log, /cannot create a tablespace: .*pg_tblspc\/16400/);
});

libraryTest("programs that Postgres starts see nothing of it", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 100 }]);
  deepEqual((await site.run("environment", `fork,${FILE},50`)).lines, ["0", okLine(page(50))]);
});

libraryTest("the control file is found under its hidden name only", async () => {
  await using site = new ProbeSite("probe.c", [{ blocks: 1 }]);
  Deno.mkdirSync(`${site.pgdata}/global`, { recursive: true });
  Deno.writeTextFileSync(`${site.pgdata}/global/pg_control.lazy`, "hidden");
  deepEqual((await site.run("control")).lines, ["ok hidden"]);
  Deno.removeSync(`${site.pgdata}/global/pg_control.lazy`);
  deepEqual((await site.run("control")).lines, ["errno 2"]);
});

libraryTest("it refuses to run on an arena of another boot or with a changed header", async () => {
  const otherBoot = "11111111-2222-3333-4444-555555555555";
  await using other = new ProbeSite("probe.c", [{ blocks: 1 }], { bootId: otherBoot });
  const result = await other.run(`pread,${FILE},0,1`);
  equal(result.code, 70);
  match(result.log, /the arena is of an earlier boot/);
  await using site = new ProbeSite("probe.c", [{ blocks: 1 }]);
  using arena = Deno.openSync(site.arenaPath, { write: true });
  arena.seekSync(100, Deno.SeekMode.Start);
  arena.writeSync(new Uint8Array([0x67]));
  const changed = await site.run(`pread,${FILE},0,1`);
  equal(changed.code, 70);
  match(changed.log, /header fails its checksum/);
});

async function races(): Promise<void> {
  for (const [kills, seed] of [[0, 11], [1, 12]] as const) {
    const forks = [{ rel: 1000, blocks: 20000 }, { rel: 2000, blocks: 20000 }];
    await using site = new ProbeSite("torture.c", forks, { retrySeconds: 20 });
    const { code, lines, log } = await site.run("20000", "2000", `${kills}`, `${seed}`);
    console.log(lines.at(-1), JSON.stringify(site.statistics));
    equal(code, 0, [...lines, log].join("\n"));
    match(lines.at(-1)!, / bad 0$/);
    equal(site.statistics.errors, 0, log);
  }
}

// A process under QEMU is told another start time of its own than others are, and so seems dead
libraryTest("no page goes back in time under races, truncation and kills", races, IS_EMULATED);
