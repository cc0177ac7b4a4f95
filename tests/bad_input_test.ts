/**
 * Bad input: every command that cannot work says so in one line, prints nothing else, ends with
 * the right exit code, and leaves no trace. The table is in bad_input/cases.ts.
 */
import assert from "node:assert/strict";
import {
  type BadCommand,
  badInits,
  badNames,
  badPositions,
  badValues,
  ofNothing,
  ofReadOnly,
  ofStopped,
  unknownThings,
  wrongUsage,
} from "./bad_input/cases.ts";
import { CONFIG_DAMAGE, type Damage, recordDamage } from "./bad_input/damage.ts";
import { createEndpoint } from "../cli/control_plane/endpoints.ts";
import { runInside } from "./bad_input/run_inside.ts";
import { snapshot } from "./bad_input/snapshot.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";

/** Runs commands that must fail; returns what is not as it has to be. */
async function wrongAnswers(
  repoDir: string,
  commands: readonly BadCommand[],
): Promise<string[]> {
  const wrong: string[] = [];
  let before = snapshot(repoDir);
  for (const { args, says, code } of commands) {
    const result = await runInside(repoDir, [...args]);
    const after = snapshot(repoDir);
    const problems = [
      ...(result.code === code ? [] : [`exit code ${result.code}, not ${code}`]),
      ...(/^error: .+\n$/.test(result.stderr) ? [] : ["not one line"]),
      ...(says.test(result.stderr) ? [] : [`nothing of ${says}`]),
      // deno-lint-ignore no-control-regex
      ...(/[\x00-\x09\x0b-\x1f\x7f\u202e]/.test(result.stderr) ? ["control characters"] : []),
      ...(/^(Starting .*\n)*$/.test(result.stdout) ? [] : [`on standard output: ${result.stdout}`]),
      ...(after === before ? [] : [`a trace: ${difference(before, after)}`]),
    ];
    before = after;
    if (problems.length === 0) continue;
    const line = args.map((arg) => JSON.stringify(arg.slice(0, 40))).join(" ");
    wrong.push(`neon ${line}: ${problems.join("; ")}\n    ${result.stderr.slice(0, 500)}`);
  }
  return wrong;
}

function difference(before: string, after: string): string {
  const [old, now] = [new Set(before.split("\n")), new Set(after.split("\n"))];
  const gone = [...old].filter((line) => !now.has(line)).map((line) => `-${line}`);
  return [...gone, ...[...now].filter((line) => !old.has(line)).map((line) => `+${line}`)]
    .join(" ");
}

async function check(neon: TestNeon, commands: readonly BadCommand[]): Promise<void> {
  const wrong = await wrongAnswers(neon.local.directory, commands);
  assert.equal(wrong.length, 0, `${wrong.length} of ${commands.length}:\n${wrong.join("\n")}`);
}

testWithNeon("bad input gets one line and leaves no trace", {}, async (neon) => {
  const known = { tenant: neon.tenant.tenantId, main: neon.tenant.timelineId };
  await neon.local.createBranch("dev");
  await neon.run("endpoint", "create", "idle", "--branch-name", "dev");
  await neon.local.startEndpoint("main");
  await check(neon, [
    ...wrongUsage(),
    ...unknownThings(known),
    ...badNames(known),
    ...badPositions(),
    ...badValues(),
    ...badInits(),
  ]);
  await checkTogether(neon);
  await checkDamage(neon, CONFIG_DAMAGE, [["status"], ["endpoint", "list"], ["init", ...ANEW]]);
  await checkDamage(neon, recordDamage("endpoints/idle/endpoint.json"), [
    ["endpoint", "start", "idle"],
    ["sql", "idle", "-c", "select 1"],
  ]);
  await checkDamage(neon, recordDamage(`tenants/${known.tenant}.json`), [
    ["endpoint", "create", "new"],
    ["timeline", "create", "--branch-name", "new"],
  ]);
  await neon.local.stop("immediate");
  await check(neon, ofStopped(known));
  await onReadOnly(neon.local.directory, () => check(neon, ofReadOnly(known)));
});

/** Runs `body` while nothing below `path` can be written; not at all where that needs more rights. */
async function onReadOnly(path: string, body: () => Promise<void>): Promise<void> {
  const mount = (...args: string[]) => new Deno.Command("mount", { args, stderr: "null" }).output();
  if (!(await mount("--bind", path, path)).success) return;
  try {
    if ((await mount("-o", "remount,ro,bind", path)).success) await body();
  } finally {
    await new Deno.Command("umount", { args: ["-l", path] }).output();
  }
}

Deno.test("without a local Neon every command says how to make one, and makes nothing", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    assert.deepEqual(await wrongAnswers(directory, ofNothing()), []);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

const ANEW = ["--force", "remove-all-contents"];

/** Of several that want the same name at the same time one gets it, and the others leave nothing. */
async function checkTogether(neon: TestNeon): Promise<void> {
  const env = neon.local.environment();
  const count = async () => (await neon.local.listTimelines()).length;
  const before = await count();
  Deno.mkdirSync(`${neon.local.directory}/creating`, { recursive: true });
  Deno.writeTextFileSync(`${neon.local.directory}/creating/half.json.___temp`, '{"ten');
  const branches = Array.from({ length: 4 }, () => neon.local.createBranch("wanted"));
  const outcomes = await Promise.allSettled(branches);
  assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
  assert.equal(await count(), before + 1);
  const endpoints = await Promise.allSettled(
    Array.from({ length: 4 }, () => createEndpoint(env, neon.tenant.tenantId, "wanted")),
  );
  assert.equal(endpoints.filter(({ status }) => status === "fulfilled").length, 1);
  assert.deepEqual([...Deno.readDirSync(`${neon.local.directory}/creating`)], []);
  await neon.local.stopEndpoint("wanted");
}

/** Commands that need a file say what is wrong with it, whatever it is, and leave it alone. */
async function checkDamage(
  neon: TestNeon,
  damages: readonly Damage[],
  readers: readonly string[][],
): Promise<void> {
  for (const { file, change, says } of damages) {
    const path = `${neon.local.directory}/${file}`;
    const before = Deno.readTextFileSync(path);
    Deno.writeTextFileSync(path, change(before));
    try {
      const commands = readers.map((args): BadCommand => ({ args, says, code: 1 }));
      await check(neon, commands.filter(({ args }) => args[0] !== "init"));
      // Beginning anew is possible whatever the file holds, but not while daemons run
      const anew = commands.filter(({ args }) => args[0] === "init");
      await check(neon, anew.map((command) => ({ ...command, says: /still running/ })));
    } finally {
      Deno.writeTextFileSync(path, before);
    }
  }
}
