/**
 * Commands start in less than a twentieth of a second because each loads only what it needs: our
 * own files and the TOML reader. Everything heavier is imported when it is used: commander when
 * there is help to print, or something is wrong.
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { programFile } from "./control_plane/supervisor.ts";
import { HttpClient } from "../libs/utils/http_client.ts";
import { settleWithoutStragglers } from "../libs/utils/stragglers.ts";
import { waitingFor } from "./waiting.ts";

/** Packages that every command may load at its start. */
const LIGHT = ["smol-toml"];
/** Commands that others wait for in their scripts: these load no module of Node's, either. */
const QUICKEST = ["endpoint.ts", "timeline.ts"];

const STATEMENT =
  /^(?:import|export)\s+(?!type\b)([^;"']*?)\s*\bfrom\s*"([^"]+)"|^import\s+"([^"]+)"/gm;

/** What a file imports when it is loaded: not types, and not what import() gets later. */
function loadedBy(path: string): string[] {
  const found: string[] = [];
  for (const [, names = "", from, bare] of Deno.readTextFileSync(path).matchAll(STATEMENT)) {
    const listed = /\{([^]*)\}/.exec(names)?.[1]?.split(",").map((name) => name.trim());
    const onlyTypes = listed?.every((name) => name === "" || name.startsWith("type "));
    if (onlyTypes !== true) found.push((from ?? bare)!);
  }
  return found;
}

/** Packages and Node's modules that are loaded with a file, each with the file that wants it. */
function packagesOf(
  path: string,
  seen = new Set<string>(),
  packages = new Map<string, string>(),
): Map<string, string> {
  if (seen.has(path)) return packages;
  seen.add(path);
  for (const specifier of loadedBy(path)) {
    if (specifier.startsWith(".")) packagesOf(join(dirname(path), specifier), seen, packages);
    else packages.set(specifier, path);
  }
  return packages;
}

Deno.test("a command loads nothing heavy before it needs it", () => {
  const commands = [...Deno.readDirSync(programFile("cli/commands"))].map(({ name }) => name);
  assert.ok(commands.length > 15);
  for (const name of commands) {
    const packages = packagesOf(programFile(`cli/commands/${name}`));
    const isLight = (specifier: string) =>
      LIGHT.includes(specifier) || (!QUICKEST.includes(name) && specifier.startsWith("node:"));
    assert.deepEqual([...packages].filter(([specifier]) => !isLight(specifier)), [], name);
    if (QUICKEST.includes(name)) assert.ok(packages.has("smol-toml"), `${name} was read`);
  }
  const starting = programFile("cli/control_plane/endpoints.ts");
  assert.deepEqual([...packagesOf(starting).keys()], LIGHT, "branch --start loads it later");
  assert.deepEqual([...packagesOf(programFile("cli/run.ts"))], [], "no command is run yet");
  assert.deepEqual([...packagesOf(programFile("cli/main.ts"))], [], "--version loads no package");
});

Deno.test("what a quick command waits for sets no timer, whose first costs a process 7 ms", async () => {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => {
    return new Response("[1]");
  });
  const client = new HttpClient("the server", `127.0.0.1:${server.addr.port}`);
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const refuse = () => {
    throw new Error("the timers were loaded");
  };
  Object.assign(globalThis, {
    ...{ setTimeout: refuse, setInterval: refuse },
    ...{ clearTimeout: refuse, clearInterval: refuse },
  });
  try {
    const asking = settleWithoutStragglers([client.json("GET", "/")], 1, 1000);
    const [outcome] = await waitingFor("Waiting", asking);
    assert.deepEqual(outcome, { status: "fulfilled", value: [1] });
  } finally {
    Object.assign(globalThis, { setTimeout, setInterval, clearTimeout, clearInterval });
    await server.shutdown();
  }
});
