/**
 * Tries what its argument lists and prints what became of each: to be run as a process of its own
 * under the flags of a daemon.
 *
 *     deno run FLAGS permission_probe.ts '[["read", "/etc/passwd"], ["connect", "127.0.0.1:1"]]'
 *     ["denied","allowed"]
 *
 * "denied" is Deno's own refusal and nothing else; what fails in another way was allowed to try.
 */
import { join } from "node:path";

/** What is tried, and on what: a path, an address, the name of a variable or function. */
export type Attempt = readonly [kind: keyof typeof KINDS, on: string];

/** Deno's refusals to import are plain errors. */
const REFUSED_IMPORT = /Requires (read|import) access|--no-remote is specified/;

function addressOf(text: string): { hostname: string; port: number } {
  const at = text.lastIndexOf(":");
  return { hostname: text.slice(0, at), port: Number(text.slice(at + 1)) };
}

const KINDS = {
  read: (path: string) => Deno.openSync(path).close(),
  list: (path: string) => [...Deno.readDirSync(path)],
  stat: (path: string) => Deno.statSync(path),
  write: (path: string) => Deno.writeTextFileSync(path, "probe"),
  remove: (path: string) => Deno.removeSync(path),
  /** The other ways to get at a file: under a name where everything is allowed. */
  link: (path: string) => Deno.linkSync(path, join(Deno.cwd(), "probe.link")),
  symlink: (path: string) => Deno.symlinkSync(path, join(Deno.cwd(), "probe.symlink")),
  rename: (path: string) => Deno.renameSync(path, join(Deno.cwd(), "probe.renamed")),
  connect: async (address: string) => (await Deno.connect(addressOf(address))).close(),
  connectUnix: async (path: string) => (await Deno.connect({ transport: "unix", path })).close(),
  listen: (address: string) => Deno.listen(addressOf(address)).close(),
  listenUnix: (path: string) => Deno.listen({ transport: "unix", path }).close(),
  run: (program: string) => new Deno.Command(program, { args: ["boot-id"] }).output(),
  kill: (pid: string) => Deno.kill(Number(pid), "SIGCONT"),
  env: (name: string) => Deno.env.get(name),
  sys: (name: string) => (Deno as unknown as Record<string, () => unknown>)[name]!(),
  ffi: (path: string) => Deno.dlopen(path, {}).close(),
  import: (specifier: string) => import(specifier),
};

async function outcome([kind, on]: Attempt): Promise<string> {
  try {
    await KINDS[kind](on);
    return "allowed";
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotCapable) return "denied";
    return REFUSED_IMPORT.test(String(thrown)) ? "denied" : `allowed, and failed: ${thrown}`;
  }
}

if (import.meta.main) {
  const outcomes: string[] = [];
  for (const attempt of JSON.parse(Deno.args[0]!) as Attempt[]) {
    outcomes.push(await outcome(attempt));
  }
  console.log(JSON.stringify(outcomes));
}
