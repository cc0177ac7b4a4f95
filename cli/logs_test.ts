import assert from "node:assert/strict";
import type { Environment } from "./control_plane/environment.ts";
import { entriesOf, inOrder, type LogEntry } from "./log_entries.ts";
import { LogFile } from "./log_file.ts";
import { LogFollower } from "./log_follow.ts";
import { type LogSource, logSources } from "./log_sources.ts";

async function withDirectory(test: (directory: string) => void | Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "neon-logs-" });
  try {
    await test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** A line of a daemon's log, `second` seconds after midnight. */
function line(second: number, text: string): string {
  return `2026-11-21T00:00:${String(second).padStart(2, "0")}.000Z INFO part: ${text}\n`;
}

function append(path: string, text: string): void {
  Deno.writeTextFileSync(path, text, { append: true });
}

Deno.test("logSources() says what is wrong with a name", () => {
  const safekeepers = [{ id: 1, pg_port: 1, http_port: 2 }];
  const env = { repoDir: "/nowhere", config: { safekeepers } as Environment["config"] };
  assert.throws(() => logSources(env, "safekeeper", "main"), /safekeeper "main": name it by/);
  assert.throws(() => logSources(env, "safekeeper", "2"), /safekeeper 2: known are 1/);
  assert.throws(() => logSources(env, "compute", "2"), /there is one compute/);
});

Deno.test("entriesOf() reads our lines and PostgreSQL's, with what follows them", () => {
  const entries = entriesOf("endpoint main", [
    "the end of something",
    '2026-11-21 18:08:08.402 UTC [10507] ERROR:  syntax error at or near "x"',
    "2026-11-21 18:08:08.402 UTC [10507] STATEMENT:  select",
    "\tx",
    "2026-11-21T18:08:09.940Z WARNING pageserver.ingest: slow: 3 s",
    "2026-11-21 18:08:10.000 GMT [7] LOG:  ready",
    "2026-11-21 19:08:10.000 CET [8] LOG:  another zone",
  ]);
  const brief = entries.map((
    { time, level, origin, message, lines },
  ) => [time, level, origin, message, lines.length]);
  assert.deepEqual(brief, [
    [null, null, null, "the end of something", 1],
    [
      "2026-11-21T18:08:08.402Z",
      "ERROR",
      "10507",
      'syntax error at or near "x"\n2026-11-21 18:08:08.402 UTC [10507] STATEMENT:  select\n\tx',
      3,
    ],
    ["2026-11-21T18:08:09.940Z", "WARNING", "pageserver.ingest", "slow: 3 s", 1],
    ["2026-11-21T18:08:10.000Z", "LOG", "7", "ready", 1],
    [null, "LOG", "8", "another zone", 1],
  ]);
});

Deno.test("inOrder() goes by time, and keeps the lines of a file in their order", () => {
  const of = (source: string, ...lines: string[]) =>
    entriesOf(source, lines.map((text) => text.trimEnd()));
  const merged = inOrder([
    of("a", line(1, "a1"), line(4, "a4"), line(2, "clock set back"), line(5, "a5")),
    of("b", "early", line(3, "b3"), line(6, "b6")),
  ]);
  assert.deepEqual(merged.map(({ message }) => message), [
    "early",
    "a1",
    "b3",
    "a4",
    "clock set back",
    "a5",
    "b6",
  ]);
});

Deno.test("tail() reads no more of a file than it has to, and no half line", async () => {
  await withDirectory((directory) => {
    const path = `${directory}/x.log`;
    const all = Array.from({ length: 5000 }, (_, i) => `${"é".repeat(40)} ${i}`);
    Deno.writeTextFileSync(path, all.join("\n") + "\nhalf a li");
    const file = new LogFile(path);
    const few = file.tail((lines) => lines.length >= 10);
    assert.ok(few.length >= 10 && few.length < 1000, `${few.length} lines`);
    assert.deepEqual(few, all.slice(-few.length));
    append(path, "ne\n");
    assert.deepEqual(file.added(), ["half a line"]);
    assert.deepEqual(file.tail(() => false), [...all, "half a line"]);
    file.close();
  });
});

Deno.test("added() goes on through a rename, a cut and a file that comes later", async () => {
  await withDirectory((directory) => {
    const path = `${directory}/x.log`;
    const file = new LogFile(path);
    assert.deepEqual(file.tail(() => true), []);
    append(path, "one\n");
    assert.deepEqual(file.added(), ["one"]);
    append(path, "two\n");
    Deno.renameSync(path, `${path}.1`);
    append(`${path}.1`, "three\n");
    append(path, "four\n");
    assert.deepEqual(file.added(), ["two", "three", "four"]);
    Deno.truncateSync(path, 0);
    append(path, "5\n");
    assert.deepEqual(file.added(), ["5"]);
    Deno.removeSync(path);
    assert.deepEqual(file.added(), []);
    append(path, "six\n");
    assert.deepEqual(file.added(), ["six"]);
    file.close();
  });
});

Deno.test("follow() shows what is added, also to files and directories that come later", async () => {
  await withDirectory(async (directory) => {
    const source = (name: string): LogSource => ({ name, path: `${directory}/${name}/log` });
    const sources = [source("a")];
    Deno.mkdirSync(`${directory}/a`);
    append(sources[0]!.path, line(1, "old") + line(2, "last"));
    const follower = new LogFollower();
    assert.deepEqual(follower.tail(sources, 1).map(({ message }) => message), ["last"]);
    append(sources[0]!.path, line(3, "between"));

    const shown: string[] = [];
    let onShown = () => {};
    const until = async (...messages: string[]) => {
      while (shown.length < messages.length) {
        await new Promise<void>((resolve) => onShown = resolve);
      }
      assert.deepEqual(shown.splice(0), messages);
    };
    const show = (entries: LogEntry[]) => {
      shown.push(...entries.map(({ source, message }) => `${source}: ${message}`));
      onShown();
    };
    const following = follower.follow(() => sources, [directory], show);
    await until("a: between");
    append(sources[0]!.path, line(4, "added"));
    await until("a: added");

    sources.push(source("b"));
    Deno.mkdirSync(`${directory}/b`);
    append(sources[1]!.path, line(5, "begun"));
    await until("b: begun");
    Deno.renameSync(sources[1]!.path, `${sources[1]!.path}.old`);
    append(sources[1]!.path, line(6, "again"));
    await until("b: again");

    follower[Symbol.dispose]();
    await following;
  });
});
