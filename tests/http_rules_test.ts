/**
 * Every route of every HTTP API has a rule that says which token opens it, and no rule is of a
 * route that is not there.
 */
import assert from "node:assert/strict";
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
    const routes = new Set(api.routes.map(({ method, path }) => `${method} ${path}`));
    const known = new Set(Object.keys({ ...COMMON_RULES, ...rules }));
    assert.deepEqual([...routes.symmetricDifference(known)], []);
    for (const [route, rule] of Object.entries(rules)) {
      assert.notEqual(rule, "open", route);
      if (rule === "tenant") assert.match(route, /\/:tenant(\/|$)/);
      if (rule === "endpoint") assert.match(route, /\/:name(\/|$)/);
    }
  });
}
