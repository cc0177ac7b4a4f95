/**
 * The README's step-by-step section and its recorded session, run word for word by a shell. The one
 * difference is that `neon init` is told to use free ports. And that all pages can be found.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { stringify } from "smol-toml";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { figuresOf, markdown } from "../bench/suite/results.ts";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { logTails } from "./harness.ts";

/** The indented command lines of one section. */
function commandsOf(readme: string, heading: string): string[] {
  const section = readme.split(/^## /m).find((text) => text.startsWith(heading));
  assert.ok(section !== undefined, `the README has a section "${heading}"`);
  return section.split("\n").filter((line) => line.startsWith("    neon "))
    .map((line) => line.trim());
}

/** The commands of a recorded session, each with what it printed. */
function sessionOf(readme: string): { command: string; printed: string }[] {
  const [, session] = /^```console\n([^]*?)^```$/m.exec(readme) ?? [];
  assert.ok(session !== undefined, "the README has a recorded session");
  return session.split(/^\$ /m).slice(1).map((text) => {
    const end = text.indexOf("\n");
    return { command: text.slice(0, end), printed: text.slice(end + 1) };
  });
}

/** Without what is another each time: ids, LSNs, ports, and how wide a client makes its columns. */
function comparable(printed: string): string {
  return printed.replace(/\b[0-9a-f]{32}\b/g, "ID").replace(/\b[0-9A-F]+\/[0-9A-F]+\b/g, "LSN")
    .replace(/127\.0\.0\.1:\d+/g, "ADDRESS").replace(/ +/g, " ").replace(/^ | $/gm, "");
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
      if (command !== "neon endpoint start main") continue;
      for (const { command, printed } of sessionOf(readme)) {
        assert.equal(comparable(await run(command)), comparable(printed), command);
      }
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

function pages(directory: string): string[] {
  return [...Deno.readDirSync(programFile(directory))].map(({ name }) => name)
    .filter((name) => name.endsWith(".md")).map((name) => `${directory}${name}`);
}

Deno.test("docs/README.md lists every page, and no link leads nowhere", () => {
  const index = Deno.readTextFileSync(programFile("docs/README.md"));
  const missing = pages("docs/").filter((path) =>
    path !== "docs/README.md" && !index.includes(`](${path.slice("docs/".length)})`)
  );
  assert.deepEqual(missing, []);
  const dead: string[] = [];
  for (const path of ["README.md", "ARCHITECTURE.md", ...pages("docs/")]) {
    const text = Deno.readTextFileSync(programFile(path));
    for (const [, link] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      const target = join(dirname(programFile(path)), link!);
      if (!existsSync(target)) dead.push(`${path}: ${link}`);
    }
  }
  assert.deepEqual(dead, []);
});

Deno.test("the README shows the figures that were measured last", () => {
  const readme = Deno.readTextFileSync(programFile("README.md"));
  const measured = Deno.readTextFileSync(programFile("bench/results/figures.md"));
  assert.equal(figuresOf(readme), measured.trim());
  const figures = JSON.parse(Deno.readTextFileSync(programFile("bench/results/figures.json")));
  assert.equal(markdown(figures), measured);
});
