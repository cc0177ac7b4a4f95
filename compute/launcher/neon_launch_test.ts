import { deepEqual, equal, match, notEqual } from "node:assert/strict";
import { join } from "node:path";
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

function logOf(directory: string): Promise<string[]> {
  return until("the program has told everything", () => {
    try {
      const text = Deno.readTextFileSync(join(directory, "log"));
      return /^end$/m.test(text) && text.trim().split("\n");
    } catch {
      return undefined; // not there yet
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
      deepEqual((await logOf(directory)).filter((line) => !/^(_|PWD|OLDPWD|SHLVL)=/.test(line)), [
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
