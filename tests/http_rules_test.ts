/**
 * Every route of every HTTP API has a rule that says which token opens it, and no rule is of a
 * route that is not there. And where nobody wants tokens, what checks them is not even loaded.
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { computeRules, httpApi as computeApi } from "../compute/http_api.ts";
import { COMMON_RULES } from "../libs/daemon/http_guard.ts";
import { httpApi as pageserverApi, pageserverRules } from "../pageserver/http_api.ts";
import { httpApi as safekeeperApi, safekeeperRules } from "../safekeeper/http_api.ts";

const APIS = {
  // What the routes work on is not looked at until they are asked
  pageserver: { api: pageserverApi({} as never), rules: pageserverRules },
  safekeeper: { api: safekeeperApi(1, {} as never, undefined), rules: safekeeperRules },
  compute: { api: computeApi({} as never, undefined), rules: computeRules },
};

for (const [name, { api, rules }] of Object.entries(APIS)) {
  Deno.test(`every route of the ${name} has a rule`, () => {
    const routes = new Set(
      api.routes.map(({ method, path }) => `${method} ${path}`)
        .filter((route) => route !== "ALL /*"), // what all requests pass through
    );
    const known = new Set(Object.keys({ ...COMMON_RULES, ...rules }));
    assert.deepEqual([...routes.symmetricDifference(known)], []);
    for (const [route, rule] of Object.entries(rules)) {
      assert.notEqual(rule, "open", route);
      if (rule === "tenant") assert.match(route, /\/:tenant(\/|$)/);
      if (rule === "endpoint") assert.match(route, /\/:name(\/|$)/);
    }
  });
}

/** A file and all own files that come with it: neither types alone nor what is imported later. */
function loadedWith(path: string, found = new Set<string>()): Set<string> {
  if (found.has(path)) return found;
  found.add(path);
  const imports = /^(?:import|export)\s(?!type\b)[^;"]*?from "(\.[^"]+)";/gm;
  for (const [, target] of Deno.readTextFileSync(path).matchAll(imports)) {
    loadedWith(join(dirname(path), target!), found);
  }
  return found;
}

Deno.test("where nobody wants tokens, what signs and checks them is not loaded", () => {
  const root = join(import.meta.dirname!, "..");
  const mains = ["broker", "safekeeper", "pageserver", "compute"].map((role) => `${role}/main.ts`);
  for (const file of [...mains, "cli/commands/endpoint.ts", "cli/commands/init.ts", "mod.ts"]) {
    const loaded = [...loadedWith(`${root}/${file}`)];
    assert.ok(loaded.length > 10, `${file}: ${loaded.length} files`);
    assert.deepEqual(loaded.filter((path) => path.startsWith(`${root}/libs/auth/`)), [], file);
  }
});
