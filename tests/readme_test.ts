/**
 * The README's step-by-step section, run word for word by a shell. The one difference is that
 * `neon init` is told to use free ports.
 */
import assert from "node:assert/strict";
import { stringify } from "smol-toml";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { logTails } from "./harness.ts";

/** The indented command lines of one section. */
function commandsOf(readme: string, heading: string): string[] {
  const section = readme.split(/^## /m).find((text) => text.startsWith(heading));
  assert.ok(section !== undefined, `the README has a section "${heading}"`);
  return section.split("\n").filter((line) => line.startsWith("    neon "))
    .map((line) => line.trim());
}

Deno.test("the README's first branch works word for word", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "neon-readme-" });
  Deno.chmodSync(directory, 0o755);
  const { broker, compute, pageservers, safekeepers } = configOnFreePorts(1, 17);
  const ports = { broker, compute, pageservers, safekeepers };
  Deno.writeTextFileSync(`${directory}/ports.toml`, stringify(ports));
  const run = async (command: string) => {
    const bin = programFile("bin");
    const { code, stdout, stderr } = await new Deno.Command("/bin/sh", {
      args: ["-c", command],
      cwd: directory,
      env: { PATH: `${bin}:${Deno.env.get("PATH")}`, NEON_DENO: Deno.execPath(), NO_COLOR: "1" },
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    assert.equal(code, 0, `${command}: ${decoder.decode(stderr)}`);
    return decoder.decode(stdout);
  };
  try {
    const readme = Deno.readTextFileSync(programFile("README.md"));
    const commands = commandsOf(readme, "A first branch");
    assert.ok(commands.length >= 12, "the section has the whole workflow");
    const outputs = new Map<string, string>();
    for (const command of commands) {
      outputs.set(
        command,
        await run(command.replace(/^neon init$/, "neon init --config ports.toml")),
      );
    }
    assert.match(outputs.get('neon sql main -c "select * from t"')!, /\(1 row\)/);
    assert.match(outputs.get('neon sql migration_check -c "select * from t"')!, /\(2 rows\)/);
  } catch (thrown) {
    console.error(logTails(`${directory}/.neon`));
    throw thrown;
  } finally {
    await run("neon stop -m immediate || true");
    Deno.removeSync(directory, { recursive: true });
  }
});
