/**
 * The tests of PostgreSQL's additional modules (contrib), each module in a database of its own:
 * index types and functions that core does not have, generic WAL, changes behind the heap's back.
 *
 * Which tests a module has says its Makefile. Modules that were not built are left out, and those
 * whose tests are not for a running server (NO_INSTALLCHECK), unless they are named.
 */
import { join } from "node:path";
import { messageOf } from "../../libs/utils/errors.ts";
import { copyOwned, runPgRegress } from "./pg_regress.ts";
import type { SuiteFiles, SuiteRequest, TestOutcome } from "./types.ts";

/** Modules that connect to their own server over its Unix socket: that of an endpoint is private. */
const OVER_SOCKET = ["dblink", "postgres_fdw"];

/** Runs the tests of all modules, or of those that are named. */
export async function runContrib(
  files: SuiteFiles,
  request: SuiteRequest,
): Promise<TestOutcome[]> {
  const directory = join(files.source, "contrib");
  const modules = request.tests ?? installcheckModules(directory);
  Deno.mkdirSync(request.directory);
  const outcomes: TestOutcome[] = [];
  for (const module of modules) {
    const cwd = join(request.directory, module);
    copyOwned(
      files,
      join(directory, module),
      cwd,
      [...Deno.readDirSync(join(directory, module))]
        .filter(({ name }) => ["sql", "expected", "data"].includes(name)).map(({ name }) => name),
    );
    copyOwned(files, join(files.source, "src/test/regress"), cwd, ["pg_regress", "regress.so"]);
    const args = [`--dbname=contrib_regression_${module}`, ...testsOf(directory, module)];
    for (const outcome of await runPgRegress(files, { ...request, directory: cwd }, args)) {
      outcomes.push({ ...outcome, name: `${module}/${outcome.name}` });
    }
  }
  return outcomes;
}

function makefile(directory: string, module: string): string {
  try {
    return Deno.readTextFileSync(join(directory, module, "Makefile")).replace(/\\\n/g, " ");
  } catch (thrown) {
    throw new Error(`Cannot find the module "${module}": ${messageOf(thrown)}`);
  }
}

/** The tests of one module, in the order in which they are run. */
function testsOf(directory: string, module: string): string[] {
  const text = makefile(directory, module);
  return [...text.matchAll(/^REGRESS\s*\+?=(.*)$/gm)]
    .flatMap(([, names]) => names!.split(/\s+/)).filter((name) => /^\w+$/.test(name));
}

function installcheckModules(directory: string): string[] {
  return [...Deno.readDirSync(directory)].filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => name).sort().filter((module) => {
      const isBuilt = [...Deno.readDirSync(join(directory, module))]
        .some(({ name }) => name.endsWith(".so"));
      return isBuilt && !OVER_SOCKET.includes(module) && testsOf(directory, module).length > 0 &&
        !/^NO_INSTALLCHECK\s*=/m.test(makefile(directory, module));
    });
}
