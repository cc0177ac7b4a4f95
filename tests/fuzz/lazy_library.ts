/**
 * The lazy file library's client of the page service, compiled with sanitizers, against a page
 * service that lies: no wrong page is taken, no memory is overrun, no fetch lasts for ever.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { SeededRandom } from "../load/random.ts";
import { LyingPageService } from "./lying_page_service.ts";

const TESTDATA = join(import.meta.dirname!, "../../compute/lazy_files/testdata");
const COMPILER = "cc";
const FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
/** Without retries a fetch takes this long at most: its limit, and a wake-up of its receiver. */
const FETCH_MS_MAX = 4000;
const RUN_MS_MAX = 120_000;
/** They mostly wait. */
const CLIENTS = 6;
/** Silences and single bytes that a client meets. */
const SLOW_LIES = 2;

/** Compiles the client; false where there is no compiler, or none with sanitizers. */
function compileClient(output: string): boolean {
  try {
    const args = [...FLAGS, ...SANITIZERS, "-o", output, "judged_client.c"];
    return new Deno.Command(COMPILER, { args, cwd: TESTDATA }).outputSync().success;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

/** One client and its liar. */
async function runClient(program: string, random: SeededRandom, fetches: number): Promise<void> {
  await using liar = new LyingPageService(random, SLOW_LIES);
  const args = [`${liar.port}`, `${fetches}`, "0", `${random.between(0, 0xffffffff)}`];
  const child = new Deno.Command(program, { args, stdout: "piped", stderr: "piped" }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), RUN_MS_MAX);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
  assert.equal(code, 0, `${new TextDecoder().decode(stderr)}\n${lines.at(-1)}`);
  const last = /^taken (\d+) wrong (\d+) refused (\d+) slowest (\d+)$/.exec(lines.at(-1)!)!;
  const [taken, wrong, refused, slowest] = last.slice(1).map(Number) as number[];
  assert.equal(wrong, 0, "a page was taken that was not asked for");
  assert.ok(taken! > 0 && refused! > 0 && liar.lies > 0, `${lines.at(-1)}`);
  assert.ok(slowest! < FETCH_MS_MAX, `a fetch took ${slowest} ms`);
}

/** Runs so many fetches, of several clients at once. */
export async function fuzzLazyLibrary(random: SeededRandom, cases: number): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "judged-client-" });
  try {
    const program = join(directory, "judged_client");
    if (!compileClient(program)) {
      return console.log("the lazy library's client is not fuzzed: there is no C compiler for it");
    }
    const fetches = Math.ceil(cases / CLIENTS);
    const clients = Array.from({ length: CLIENTS }, () => random.fork());
    await Promise.all(clients.map((own) => runClient(program, own, fetches)));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}
