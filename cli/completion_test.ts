/** Completion of commands, options and names: the answers, and the shells' scripts that use them. */
import assert from "node:assert/strict";
import { defaultConfig, storeConfig } from "./control_plane/config.ts";
import { storeEndpointRecord } from "./control_plane/endpoint_records.ts";
import { storeTenantRecord } from "./control_plane/tenant_records.ts";
import { programFile } from "./control_plane/supervisor.ts";
import { completionLines } from "./completion.ts";
import { COMPLETION_SCRIPTS } from "./completion_scripts.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";

const TENANT = "9ef87a5bf0d92544f6fafeeb3239695c" as TenantId;
const MAIN = "de200bd42b49cc1814412c7e592dd6e9" as TimelineId;
const DEV = "b3b863fa45fa9e57e615f9f2d944e601" as TimelineId;

/** A state directory with two branches, two endpoints and three safekeepers; nothing runs. */
async function withState(test: (repoDir: string) => void | Promise<void>): Promise<void> {
  const repoDir = Deno.makeTempDirSync({ prefix: "neon-completion-" });
  const before = Deno.env.get("NEON_REPO_DIR");
  try {
    storeConfig(repoDir, {
      ...defaultConfig(3, 17),
      default_tenant_id: TENANT,
      branch_name_mappings: { main: [[TENANT, MAIN]], dev: [[TENANT, DEV]] },
    });
    const timeline = { pg_version: 17, safekeepers: [1, 2, 3] };
    const timelines = { [MAIN]: timeline, [DEV]: timeline };
    storeTenantRecord(repoDir, TENANT, { generation: 1, pg_version: 17, timelines });
    for (const [i, endpoint_id] of ["main", "reports"].entries()) {
      storeEndpointRecord(repoDir, {
        endpoint_id,
        tenant_id: TENANT,
        timeline_id: MAIN,
        mode: i === 0 ? "Primary" : "Replica",
        pg_port: 55432 + i,
        pg_version: 17,
      });
    }
    Deno.env.set("NEON_REPO_DIR", repoDir);
    await test(repoDir);
  } finally {
    if (before === undefined) Deno.env.delete("NEON_REPO_DIR");
    else Deno.env.set("NEON_REPO_DIR", before);
    Deno.removeSync(repoDir, { recursive: true });
  }
}

/** The words that can come, without their descriptions. */
async function words(...line: string[]): Promise<string[]> {
  return (await completionLines(line)).map((answer) => answer.split("\t")[0]!);
}

Deno.test("commands, subcommands and options are completed", async () => {
  assert.ok((await words("")).includes("timeline"));
  assert.deepEqual(await words("timel"), ["timeline"]);
  assert.deepEqual(await words("timeline", ""), ["create", "branch", "list", "compact"]);
  assert.deepEqual(await words("help", "timeline", "b"), ["branch"]);
  assert.deepEqual(await words("timeline", "branch", "--ancestor-b"), ["--ancestor-branch-name"]);
  assert.deepEqual(await words("--ver"), ["--version", "--verbose"]);
  assert.deepEqual(await words("storage_broker", "re"), ["restart"]);
  assert.deepEqual(await words("bogus", ""), []);
  assert.match((await completionLines(["timel"]))[0]!, /^timeline\tcreate, branch/);
});

Deno.test("values are completed: choices, files, names of the state directory", async () => {
  assert.deepEqual(await words("stop", "-m", "i"), ["immediate"]);
  assert.deepEqual(await words("stop", "--mode=f"), ["--mode=fast"]);
  assert.deepEqual(await words("stop", "--mode", "=", "f"), ["fast"]); // as bash splits it
  assert.deepEqual(await words("init", "--config", ""), [":files"]);
  assert.deepEqual(await words("init", "--pg-bin", ""), [":directories"]);
  assert.deepEqual(await words("completion", ""), ["bash", "zsh", "fish"]);
  await withState(async () => {
    assert.deepEqual(await words("timeline", "branch", "--ancestor-branch-name", ""), [
      "dev",
      "main",
    ]);
    assert.deepEqual(await words("timeline", "branch", "--branch-name", ""), []);
    assert.deepEqual(await words("endpoint", "start", "--branch-name=d"), ["--branch-name=dev"]);
    assert.deepEqual(await words("endpoint", "stop", ""), ["main", "reports"]);
    assert.deepEqual(await words("endpoint", "stop", "main", ""), []);
    assert.deepEqual(await words("endpoint", "start", "-c", "a=b", "r"), ["reports"]);
    assert.deepEqual(await words("sql", "-c", "select 1", "m"), ["main"]);
    assert.deepEqual(await words("safekeeper", "restart", ""), ["1", "2", "3"]);
    assert.deepEqual(await words("logs", "endpoint", ""), ["main", "reports"]);
    assert.deepEqual(await words("logs", "-f", "safekeeper", ""), ["1", "2", "3"]);
    assert.deepEqual(await words("logs", "pageserver", ""), []);
    assert.deepEqual(await words("timeline", "list", "--tenant-id", ""), [TENANT]);
    assert.deepEqual(await words("mappings", "map", "--timeline-id", "b3"), [DEV]);
    const other = ["--tenant-id", "0".repeat(32), "--branch", ""];
    assert.deepEqual(await words("wal", "dump", ...other), []);
  });
});

Deno.test("names are completed as none where there is no state directory", async () => {
  await withState(async (repoDir) => {
    Deno.env.set("NEON_REPO_DIR", `${repoDir}/none`);
    assert.deepEqual(await words("endpoint", "stop", ""), []);
    Deno.env.set("NEON_REPO_DIR", "relative");
    assert.deepEqual(await words("endpoint", "stop", ""), []);
  });
});

function isInstalled(shell: string): boolean {
  try {
    return new Deno.Command(shell, { args: ["--version"], stdout: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** What a shell prints after it loaded its completion script. */
function inShell(shell: "bash" | "zsh" | "fish", options: string[], code: string): string[] {
  const file = Deno.makeTempFileSync({ prefix: "neon-completion-" });
  try {
    Deno.writeTextFileSync(file, COMPLETION_SCRIPTS[shell]);
    const { success, stdout, stderr } = new Deno.Command(shell, {
      args: [...options, "-c", code.replaceAll("SCRIPT", `'${file}'`)],
      env: {
        PATH: `${programFile("bin")}:${Deno.env.get("PATH")}`,
        NEON_DENO: Deno.execPath(),
        LC_ALL: "C.UTF-8", // shells warn about a locale that is not installed
      },
    }).outputSync();
    const decoder = new TextDecoder();
    assert.ok(success, decoder.decode(stderr));
    assert.equal(decoder.decode(stderr), "");
    return decoder.decode(stdout).split("\n").filter((line) => line !== "");
  } finally {
    Deno.removeSync(file);
  }
}

Deno.test("bash completes with the script", async () => {
  await withState((repoDir) => {
    const complete = (...line: string[]) =>
      inShell(
        "bash",
        ["--norc"],
        `source SCRIPT; complete -p neon >/dev/null; cd '${repoDir}'
         COMP_WORDS=(neon ${line.map((word) => `'${word}'`).join(" ")})
         COMP_CWORD=${line.length}; _neon; printf '%s\\n' "\${COMPREPLY[@]}"`,
      );
    assert.deepEqual(complete("timeline", "b"), ["branch"]);
    assert.deepEqual(complete("endpoint", "stop", ""), ["main", "reports"]);
    assert.deepEqual(complete("endpoint", "start", "--branch-name", "=", "d"), ["dev"]);
    assert.deepEqual(complete("stop", "--mode", "="), ["fast", "immediate"]);
    assert.deepEqual(complete("init", "--config", "con"), ["config"]);
    assert.deepEqual(complete("init", "--pg-bin", "end"), ["endpoints"]);
  });
});

Deno.test({
  name: "zsh completes with the script",
  ignore: !isInstalled("zsh"),
  fn: () =>
    withState(() => {
      const complete = (...line: string[]) =>
        inShell(
          "zsh",
          ["-f"],
          `compdef() {}; _files() { print files "$@" }; _describe() { print -l -- $found }
           source SCRIPT; words=(neon ${line.map((word) => `'${word}'`).join(" ")})
           CURRENT=${line.length + 1}; _neon`,
        );
      assert.deepEqual(complete("endpoint", "stop", ""), [
        "main:Primary, port 55432",
        "reports:Replica, port 55433",
      ]);
      assert.deepEqual(complete("stop", "-m", ""), ["fast", "immediate"]);
      assert.deepEqual(complete("init", "--pg-bin", ""), ["files -/"]);
    }),
});

Deno.test({
  name: "fish completes with the script",
  ignore: !isInstalled("fish"),
  fn: () =>
    withState(() => {
      const complete = (line: string) =>
        inShell("fish", ["--no-config"], `source SCRIPT; complete -C '${line}'`);
      assert.deepEqual(complete("neon endpoint stop "), [
        "main\tPrimary, port 55432",
        "reports\tReplica, port 55433",
      ]);
      assert.deepEqual(complete("neon stop -m i"), ["immediate"]);
    }),
});
