/**
 * pg_regress and its like as programs: files copied for them, run on a server, their report read.
 *
 * They run as the user that PostgreSQL runs as, in a directory which that user owns, because tests
 * let the server read and write there.
 */
import { join } from "node:path";
import { commandUser } from "../../cli/control_plane/host_user.ts";
import { clientEnvironment } from "./client_programs.ts";
import type { SuiteFiles, SuiteRequest, TestOutcome } from "./types.ts";

/** Copies files and folders into `to`, which may be new, and gives it to PostgreSQL's user. */
export function copyOwned(
  { user }: SuiteFiles,
  from: string,
  to: string,
  names: Iterable<string>,
): void {
  Deno.mkdirSync(to, { recursive: true });
  for (const name of names) {
    const { success } = new Deno.Command("cp", {
      args: ["-RL", join(from, name), to],
      stderr: "null",
    }).outputSync();
    if (success) continue;
    throw new Error(
      `Cannot find "${join(from, name)}": build it with "make -C ${from}" in a PostgreSQL source ` +
        `tree that has been configured and made`,
    );
  }
  if (user === undefined) return;
  new Deno.Command("chown", { args: ["-R", `${user.uid}:${user.gid}`, to] }).outputSync();
}

/** Runs the program `pg_regress` (or `program`) in `directory`. Throws if it could not run. */
export async function runPgRegress(
  files: SuiteFiles,
  { server, directory, line }: Pick<SuiteRequest, "server" | "directory" | "line">,
  args: readonly string[],
  program = "pg_regress",
): Promise<TestOutcome[]> {
  const output = await run(files, directory, `${directory}/${program}`, [
    `--bindir=${files.binDir}`,
    "--dlpath=.",
    "--host=127.0.0.1",
    `--port=${server.port}`,
    `--user=${server.user}`,
    "--max-concurrent-tests=20",
    ...args,
  ], line);
  const outcomes = parseOutcomes(output, splitDiffs(textOf(join(directory, "regression.diffs"))));
  if (outcomes.length > 0) return outcomes;
  throw new Error(`Cannot run ${program} in "${directory}": ${output.trim()}`);
}

/** Runs a program of the build; returns all of its output. */
async function run(
  { binDir, user }: SuiteFiles,
  cwd: string,
  program: string,
  args: string[],
  line: (text: string) => void,
): Promise<string> {
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", 'exec "$0" "$@" 2>&1', program, ...args],
    cwd,
    clearEnv: true,
    env: clientEnvironment(binDir, cwd),
    stdin: "null",
    stdout: "piped",
    ...commandUser(user),
  }).spawn();
  let output = "";
  let begun = 0; // where the line starts that has not ended
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    for (let end; (end = output.indexOf("\n", begun)) >= 0; begun = end + 1) {
      line(output.slice(begun, end));
    }
  }
  await child.status;
  return output;
}

/** "ok 12  + name   34 ms" since 16; "test name ... ok  34 ms" and "  name ... FAILED" before. */
const TAP_LINE = /^(not )?ok \d+\s+[-+] (\S+)\s+(\d+) ms/;
const OLD_LINE = /^(?:test| {4})\s*(\S+)\s+\.\.\. (ok|FAILED)(?:.*?)\s(\d+) ms/;

/** Reads the output of pg_regress. */
export function parseOutcomes(output: string, diffs: ReadonlyMap<string, string>): TestOutcome[] {
  return output.split("\n").flatMap((line) => {
    const tap = TAP_LINE.exec(line);
    const old = tap === null ? OLD_LINE.exec(line) : null;
    const name = tap?.[2] ?? old?.[1];
    if (name === undefined) return [];
    const passed = tap !== null ? tap[1] === undefined : old![2] === "ok";
    const milliseconds = Number(tap?.[3] ?? old![3]);
    return [{ name, passed, milliseconds, diff: diffs.get(name) ?? "" }];
  });
}

/** The parts of regression.diffs by test. */
export function splitDiffs(text: string): Map<string, string> {
  const parts = text.split(/^(?=diff )/m).filter((part) => part.startsWith("diff "));
  return new Map(parts.map((part) => [/\/results\/(\S+)\.out\n/.exec(part)![1]!, part]));
}

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return ""; // there is none if all tests passed
  }
}
