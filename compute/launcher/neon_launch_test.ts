import { deepEqual, equal, match, notEqual } from "node:assert/strict";
import { join } from "node:path";
import { Launcher } from "../postgres_process.ts";
import { until } from "../../tests/support/waiting.ts";

const LAUNCHER = join(import.meta.dirname!, "neon_launch.sh");
const ON_LINUX = Deno.build.os === "linux";

async function launch(
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(LAUNCHER, { args }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout).trim(), stderr: decoder.decode(stderr) };
}

/** A directory with a program called postgres that tells what it sees and then waits. */
async function withFakePostgres(
  use: (directory: string, start: (...args: string[]) => Deno.ChildProcess) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "launcher-" });
  Deno.mkdirSync(join(directory, "data"));
  const script = `#!/bin/sh
echo "pid $$"; echo "args $*"; echo "cwd $(pwd)"; umask
env | sort; echo end; exec sleep 60\n`;
  Deno.writeTextFileSync(join(directory, "postgres"), script);
  Deno.chmodSync(join(directory, "postgres"), 0o755);
  const started: Deno.ChildProcess[] = [];
  try {
    await use(directory, (...args) => {
      const process = new Deno.Command(LAUNCHER, {
        args: ["start", ...args],
        env: { SECRET: "not passed on", TZ: "Europe/Berlin" },
      }).spawn();
      started.push(process);
      return process;
    });
  } finally {
    for (const process of started) {
      try {
        process.kill("SIGKILL");
      } catch {
        // ended
      }
      await process.status;
    }
    Deno.removeSync(directory, { recursive: true });
  }
}

/** What the program told, but for what its shell adds to the environment. */
function logOf(directory: string): Promise<string[]> {
  return until("the program has told everything", () => {
    try {
      const text = Deno.readTextFileSync(join(directory, "log"));
      if (!/^end$/m.test(text)) return undefined;
      return text.trim().split("\n").filter((line) => !/^(_|PWD|OLDPWD|SHLVL)=/.test(line));
    } catch {
      return undefined; // not there yet
    }
  });
}

/** The spare launchers of this process. */
function sparePids(): number[] {
  const pids = [...Deno.readDirSync("/proc")].map(({ name }) => Number(name));
  return pids.filter((pid) => {
    try {
      const [, parent] = /\) \S (\d+) /.exec(Deno.readTextFileSync(`/proc/${pid}/stat`)) ?? [];
      const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      return parent === String(Deno.pid) && words.includes(LAUNCHER) && words.includes("spare");
    } catch {
      return false; // no process, or gone
    }
  });
}

Deno.test({
  name: "launcher start becomes postgres in a clean environment",
  ignore: !ON_LINUX,
  fn: () =>
    withFakePostgres(async (directory, start) => {
      const data = join(directory, "data");
      const log = join(directory, "log");
      const process = start(data, log, "-", directory, "-", "-", "--", "-c", "a=b c");
      deepEqual(await logOf(directory), [
        `pid ${process.pid}`,
        `args -D ${data} -c a=b c`,
        `cwd ${data}`,
        "0077",
        "LC_ALL=C.UTF-8",
        `PATH=${directory}:/usr/bin:/bin`,
        "TZ=Europe/Berlin",
        "end",
      ]);
    }),
});

Deno.test({
  name: "launcher start passes the library and the arena on",
  ignore: !ON_LINUX,
  fn: () =>
    withFakePostgres(async (directory, start) => {
      const data = join(directory, "data");
      const library = join(directory, "library.so");
      Deno.copyFileSync(
        join(import.meta.dirname!, "../lazy_files/prebuilt/linux-x64/neon_lazy_files.so"),
        library,
      );
      const log = join(directory, "log");
      start("--library", library, data, log, "/the/arena", directory, "-", "-", "--");
      const lines = await logOf(directory);
      // The library is inert in a shell; only a program called postgres takes its settings away.
      deepEqual(lines.filter((line) => /^(LD_|NEON_)/.test(line)), [
        `LD_PRELOAD=${/[:\s]/.test(library) ? "/proc/self/fd/9" : library}`,
        "NEON_LAZY_ARENA=/the/arena",
        `NEON_LAZY_PGDATA=${data}`,
      ]);
    }),
});

Deno.test({
  name: "launcher start --wait becomes postgres when it is told so, and not without",
  ignore: !ON_LINUX,
  fn: () =>
    withFakePostgres(async (directory) => {
      const data = join(directory, "data");
      const log = join(directory, "log");
      const args = ["start", "--wait", data, log, "-", directory, "-", "-", "--", "-c", "a=b c"];
      const told = async (text: string) => {
        const process = new Deno.Command(LAUNCHER, { args, stdin: "piped" }).spawn();
        const input = process.stdin.getWriter();
        await input.write(new TextEncoder().encode(text));
        return { process, input };
      };
      const { process: left, input: end } = await told("d=1\n");
      await end.close();
      equal((await left.status).code, 67);
      equal(Deno.readTextFileSync(log), "");
      const { process, input } = await told("d=e  f$\ng='h'\n\n");
      const lines = await logOf(directory);
      deepEqual(lines.slice(0, 3), [
        `pid ${process.pid}`,
        `args -D ${data} -c a=b c -c d=e  f$ -c g='h'`,
        `cwd ${data}`,
      ]);
      await input.close();
      process.kill("SIGKILL");
      await process.status;
    }),
});

Deno.test({
  name: "launcher spare waits for what to start, and ends without it",
  ignore: !ON_LINUX,
  fn: () =>
    withFakePostgres(async (directory) => {
      const data = join(directory, "data d");
      Deno.mkdirSync(data);
      const log = join(directory, "log");
      const spare = () => {
        const env = { SECRET: "not passed on", TZ: "Europe/Berlin" };
        const process = new Deno.Command(LAUNCHER, { args: ["spare"], env, stdin: "piped" })
          .spawn();
        const input = process.stdin.getWriter();
        return {
          process,
          input,
          tell: (text: string) => input.write(new TextEncoder().encode(text)),
        };
      };
      for (const part of ["", `-\n${data}\n${log}\n`]) {
        const { process, input, tell } = spare();
        await tell(part);
        await input.close();
        equal((await process.status).code, 67);
      }
      const { process, input, tell } = spare();
      await tell(["-", data, log, "-", directory, "-", "-", ""].join("\n"));
      await tell("d=e  f$\n\n");
      deepEqual(await logOf(directory), [
        `pid ${process.pid}`,
        `args -D ${data} -c d=e  f$`,
        `cwd ${data}`,
        "0077",
        "LC_ALL=C.UTF-8",
        `PATH=${directory}:/usr/bin:/bin`,
        "TZ=Europe/Berlin",
        "end",
      ]);
      await input.close();
      process.kill("SIGKILL");
      await process.status;
    }),
});

Deno.test({
  name: "a spare launcher is used once, replaced, and done without when it has ended",
  ignore: !ON_LINUX,
  sanitizeOps: false, // there always is one more
  sanitizeResources: false,
  fn: () =>
    withFakePostgres(async (directory) => {
      const launcher = new Launcher(LAUNCHER, undefined);
      const staying = setInterval(() => {}, 1000); // children of a launcher keep no process alive
      const pidNow = async () => {
        const log = join(directory, "log");
        const pgdata = join(directory, "data");
        const options = { pgdata, logFile: log, arena: undefined, binDir: directory };
        Deno.writeTextFileSync(log, "");
        const prepared = launcher.prepare({ ...options, owner: undefined });
        const process = prepared.start([["a", "b"]]);
        const [pid, args] = await logOf(directory);
        deepEqual([pid, args], [`pid ${process.pid}`, `args -D ${pgdata} -c a=b`]);
        Deno.kill(process.pid, "SIGKILL");
        await process.exited;
        await prepared.cancel();
        return process.pid;
      };
      const waiting = () => until("there is a spare one", () => sparePids()[0]);
      launcher.makeSpare();
      launcher.makeSpare();
      equal(sparePids().length, 1);
      const first = await waiting();
      equal(await pidNow(), first);
      const second = await waiting(); // by itself
      Deno.kill(second, "SIGKILL");
      await until("its parent knows that it has ended", () => {
        return ![...Deno.readDirSync("/proc")].some(({ name }) => name === String(second));
      });
      notEqual(await pidNow(), second);
      clearInterval(staying);
    }),
});

Deno.test("an adopted Postgres has not ended because nobody could look for a moment", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "launcher-" });
  const path = join(directory, "launcher");
  // The first look finds it, the second cannot be made, the third finds that it is gone
  const script = `#!/bin/sh
cd ${directory}; echo >>looks
case $(wc -l <looks) in 1) echo alive 5 postgres ;; 2) exit 66 ;; *) echo dead ;; esac
`;
  Deno.writeTextFileSync(path, script, { mode: 0o755 });
  const adopted = await new Launcher(path, undefined).adopt({ pid: 1, startTime: "5" });
  equal(await adopted?.exited, "an unknown exit code");
  equal(Deno.readTextFileSync(join(directory, "looks")), "\n\n\n");
  Deno.removeSync(directory, { recursive: true });
});

Deno.test({
  name: "launcher start fails without a readable library",
  ignore: !ON_LINUX,
  fn: () =>
    withFakePostgres(async (directory, start) => {
      const log = join(directory, "log");
      const data = join(directory, "data");
      const process = start(
        ...["--library", "/missing.so", data, log, "/the/arena", directory, "-", "-", "--"],
      );
      equal((await process.status).code, 66);
      match(Deno.readTextFileSync(log), /cannot read \/missing.so/);
    }),
});

Deno.test({
  name: "launcher probe and signal tell a process from a later one with its id",
  ignore: !ON_LINUX,
  async fn() {
    const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
    const pid = `${child.pid}`;
    const probed = (await launch("probe", pid)).stdout;
    match(probed, /^alive \d+ (other|postgres)$/);
    const startTime = probed.split(" ")[1]!;
    equal((await launch("signal", "TERM", pid, `${Number(startTime) + 1}`)).code, 3);
    match((await launch("probe", pid)).stdout, /^alive/);
    equal((await launch("signal", "TERM", pid, startTime)).code, 0);
    equal((await child.status).signal, "SIGTERM");
    equal((await launch("probe", pid)).stdout, "dead");
    equal((await launch("signal", "TERM", pid, startTime)).code, 3);
  },
});

Deno.test({
  name: "launcher refuses wrong arguments",
  ignore: !ON_LINUX,
  async fn() {
    const wrong = [
      [],
      ["other"],
      ["start", "/tmp"],
      ["probe", "1; true"],
      ["signal", "USR1", "1", "1"],
    ];
    for (const args of wrong) notEqual((await launch(...args)).code, 0, args.join(" "));
    const { stdout } = await launch("boot-id");
    equal(stdout, Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim());
  },
});
