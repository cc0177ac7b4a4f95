/**
 * The program on a machine of other ways than ours: its checkout, its state and its cache in
 * directories with spaces and letters of other scripts, files closed to others by the umask, no
 * terminal, a locale of other letter cases, a time zone between the hours, few file descriptors,
 * hardly any environment, and no psql. And on one where it cannot be loaded, which is told in one
 * line.
 */
import assert from "node:assert/strict";
import { stringify } from "smol-toml";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { cacheDirectory } from "../cli/control_plane/host_user.ts";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { logTails } from "./harness.ts";

const PATH = Deno.env.get("PATH")!;

/** Runs a shell script with nothing in its environment but `env`. */
async function shell(script: string, cwd: string, env: Record<string, string>) {
  const { code, stdout, stderr } = await new Deno.Command("/bin/sh", {
    args: ["-c", script],
    cwd,
    clearEnv: true,
    env: { PATH, ...env },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Where Deno keeps what it has fetched, which is not to be fetched again. */
function denoDirectory(): string {
  const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}

/** What a program's directory is without: what no command reads. */
const NOT_COPIED = ["--exclude=.git", "--exclude=testdata", "--exclude=*_test.ts"];

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "neon-odd-" });
  Deno.chmodSync(directory, 0o755);
  try {
    await body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("directories, umask, locale and limits may be other than ours", async () => {
  await inDirectory(async (top) => {
    const program = `${top}/Prögramm (1) #2 %41`;
    const work = `${top}/Wörk & 'dátä'`;
    const cache = `${top}/Cäche: all of it`;
    Deno.mkdirSync(program);
    Deno.mkdirSync(work);
    // What is downloaded anyway
    Deno.mkdirSync(cache);
    Deno.chmodSync(cache, 0o755);
    for (const part of ["postgres", "initdb"]) {
      Deno.mkdirSync(`${cacheDirectory()}/${part}`, { recursive: true });
      Deno.symlinkSync(`${cacheDirectory()}/${part}`, `${cache}/${part}`);
    }
    const { broker, compute, pageservers, safekeepers } = configOnFreePorts(1, 17);
    const ports = { broker, compute, pageservers, safekeepers };
    Deno.writeTextFileSync(`${work}/ports.toml`, stringify(ports));
    const copy = await shell(
      `tar ${NOT_COPIED.join(" ")} -cf - . | tar -C '${program}' -xf -`,
      programFile("."),
      {},
    );
    assert.equal(copy.code, 0, copy.stderr);

    const env = {
      HOME: `${top}/nowhere`,
      NEON_CACHE_DIR: cache,
      DENO_DIR: denoDirectory(),
      NEON_DENO: Deno.execPath(),
      LANG: "tr_TR.UTF-8",
      TZ: "Asia/Kathmandu",
      neon: `${program}/bin/neon`,
    };
    const run = async (script: string) => {
      const { code, stdout, stderr } = await shell(
        `umask 077; ulimit -n 256; ${script}`,
        work,
        env,
      );
      assert.equal(code, 0, `${script}: ${stdout}${stderr}`);
      return stdout;
    };
    try {
      await run('"$neon" init --config ports.toml && "$neon" start');
      await run('"$neon" tenant create --set-default && "$neon" endpoint start main');
      await run('"$neon" sql main -c "create table t as select i from generate_series(1, 100) i"');
      const refused = await shell('"$neon" timeline branch --branch-name ığdır --start', work, env);
      assert.match(refused.stderr, /^error: Cannot start an endpoint of the branch's name "ığdır"/);
      await run('"$neon" timeline branch --branch-name ığdır');
      await run('"$neon" endpoint start igdir --branch-name ığdır');
      assert.match(await run('"$neon" sql igdir -c "select count(*) from t"'), /^ +100$/m);
      assert.match(await run('"$neon" sql main -c "show timezone"'), /^ UTC$/m);
      const text = "create table a(i int); insert into a values (1) returning i; copy a to stdout";
      assert.equal(
        await run(`"$neon" sql main --no-psql -c "${text}"`),
        "CREATE TABLE\n i\n---\n 1\n(1 row)\n\nINSERT 0 1\n1\n",
      );
      const copying = await shell('"$neon" sql main --no-psql -c "copy a from stdin"', work, env);
      assert.equal(copying.code, 1);
      assert.match(copying.stderr, /^ERROR: {2}COPY from stdin failed: this client has no data/);
      await run('"$neon" stop && "$neon" start && "$neon" endpoint start main');
      assert.match(await run('"$neon" sql main -c "select count(*) from t"'), /^ +100$/m);
    } catch (thrown) {
      console.error(logTails(`${work}/.neon`));
      throw thrown;
    } finally {
      await run('"$neon" stop -m immediate');
    }
  });
});

Deno.test("a program that cannot be loaded says why in one line", async () => {
  await inDirectory(async (directory) => {
    await using registry = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      () => new Response("gone", { status: 404 }),
    );
    const env = {
      DENO_DIR: `${directory}/empty`,
      NEON_DENO: Deno.execPath(),
      NPM_CONFIG_REGISTRY: `http://127.0.0.1:${registry.addr.port}/`,
    };
    const { code, stderr } = await shell(`'${programFile("bin/neon")}' status`, directory, env);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^error: Cannot load the program: Failed caching npm package [^\n]+\n$/,
    );
  });
});
