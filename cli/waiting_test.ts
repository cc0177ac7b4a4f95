/** What people see while they wait: on a terminal (a pseudo terminal here) and elsewhere. */
import assert from "node:assert/strict";
import { programFile } from "./control_plane/supervisor.ts";

const PROGRAM = `
  import { printError } from "${programFile("cli/error_text.ts")}";
  import { printLine } from "${programFile("cli/output.ts")}";
  import { waitingFor } from "${programFile("cli/waiting.ts")}";
  const work = new Promise((resolve) => setTimeout(resolve, 300));
  await waitingFor("Digging", work, 100);
  printLine("done");
  printError("too deep");
`;

function hasScript(): boolean {
  try {
    return new Deno.Command("script", { args: ["--version"], stdout: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** This process's environment without what says whether colours are wanted: CI systems set these. */
function withoutColourSettings(): Record<string, string> {
  const env = Deno.env.toObject();
  for (const name of Object.keys(env)) {
    if (/^(TERM|CI|.*COLOR.*)$/.test(name)) delete env[name];
  }
  return env;
}

function shellWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** What the program writes, on a terminal or into pipes. */
function output(onTerminal: boolean, env: Record<string, string>): string {
  const file = Deno.makeTempFileSync({ suffix: ".ts" });
  try {
    Deno.writeTextFileSync(file, PROGRAM);
    const config = `--config=${programFile("deno.json")}`;
    const run = ["run", "--quiet", "--no-check", "-A", config, file];
    const [command, ...args] = onTerminal
      ? ["script", "-qec", [Deno.execPath(), ...run].map(shellWord).join(" "), "/dev/null"]
      : [Deno.execPath(), ...run];
    const { stdout, stderr } = new Deno.Command(command!, {
      args,
      clearEnv: true,
      env: { ...withoutColourSettings(), ...env },
      stdin: "null",
    }).outputSync();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  } finally {
    Deno.removeSync(file);
  }
}

Deno.test({
  name: "waitingFor() shows a passing line on a terminal, and colours unless unwanted",
  ignore: !hasScript(),
  fn: () => {
    const coloured = output(true, { TERM: "xterm" });
    const lines = coloured.split("\r\x1b[K");
    const waits = lines.slice(1, -1);
    assert.ok(waits.length > 0 && waits.every((line) => line === "Digging ... 0 s"), coloured);
    assert.equal(lines.at(-1), "done\r\n\x1b[31merror:\x1b[39m too deep\r\n");
    for (const env of [{ TERM: "xterm", NO_COLOR: "1" }, { TERM: "dumb" }]) {
      const plain = output(true, env);
      assert.match(plain, /Digging/);
      assert.ok(plain.endsWith("done\r\nerror: too deep\r\n"), plain);
    }
  },
});

Deno.test("waitingFor() and colours are silent where no terminal is", () => {
  assert.equal(output(false, {}), "done\nerror: too deep\n");
});
