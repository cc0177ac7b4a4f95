/** `neon sql`: an SQL prompt on an endpoint, by the system's psql or by our own small client. */
import { Command } from "../command.ts";
import { LOOPBACK, MAIN_BRANCH } from "../control_plane/config.ts";
import { SUPERUSER } from "../control_plane/endpoints.ts";
import {
  endpointNotFound,
  type EndpointRecord,
  isPortFree,
  listEndpointRecords,
  loadEndpointRecord,
} from "../control_plane/endpoint_records.ts";
import { type Environment, openEnvironment } from "../control_plane/environment.ts";
import { BadRequest, Unavailable } from "../../libs/utils/errors.ts";
import { withExamples } from "../help.ts";
import { repeated } from "../options.ts";
import { printHint } from "../output.ts";

/** The endpoint named, else main, else the only one. */
function endpointOf(env: Environment, name: string | undefined): EndpointRecord {
  const records = listEndpointRecords(env.repoDir);
  const record = name !== undefined
    ? loadEndpointRecord(env.repoDir, name)
    : records.find((known) => known.endpoint_id === MAIN_BRANCH) ??
      (records.length === 1 ? records[0] : undefined);
  if (record !== undefined) return record;
  if (name !== undefined) throw endpointNotFound(env.repoDir, name);
  const names = records.map((known) => known.endpoint_id).join(", ");
  throw new BadRequest(
    names === ""
      ? 'Cannot connect: there is no endpoint yet; "neon endpoint start main" makes one'
      : `Cannot tell which endpoint is meant: name one of ${names}`,
  );
}

/** Throws Unavailable if nobody listens on the endpoint's port. */
function checkRuns({ endpoint_id: name, pg_port: port }: EndpointRecord): void {
  if (!isPortFree(LOOPBACK, port)) return;
  throw new Unavailable(
    `Cannot connect to endpoint "${name}": it does not run; "neon endpoint start ${name}" ` +
      `starts it`,
  );
}

/**
 * Says which daemons are down, since what needs them waits until they are back. A running endpoint
 * needs no broker.
 */
async function sayWhatIsDown(env: Environment): Promise<void> {
  const { allRoles } = await import("../control_plane/lifecycle.ts");
  const { daemonPid } = await import("../control_plane/supervisor.ts");
  const down = allRoles(env).filter((role) => daemonPid(role) === undefined)
    .map(({ name }) => name).filter((name) => name !== "storage_broker");
  if (down.length === 0) return;
  const [are, them] = down.length === 1 ? ["is", "it"] : ["are", "them"];
  printHint(`${down.join(", ")} ${are} stopped: what needs ${them} waits until "neon start"`);
}

/** Runs the system's psql; undefined if there is none. */
async function runPsql(args: string[]): Promise<number | undefined> {
  const leaveItToPsql = () => {}; // which cancels a query or clears the line
  Deno.addSignalListener("SIGINT", leaveItToPsql);
  try {
    return (await new Deno.Command("psql", { args }).spawn().status).code;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  } finally {
    Deno.removeSignalListener("SIGINT", leaveItToPsql);
  }
}

/** The command. */
export function command(): Command {
  const made = new Command("sql")
    .description("open an SQL prompt on an endpoint, or run commands there")
    .argument("[endpoint]", "which endpoint (default: main, or the only one)")
    .option("-c, --command <sql>", "run this and exit (may be repeated)", repeated)
    .option("-d, --dbname <name>", "which database", "postgres")
    .option("-U, --username <name>", "as which user", SUPERUSER)
    .option("--no-psql", "use the built-in client even if psql is installed")
    .action(async (name, options) => {
      const env = openEnvironment();
      const endpoint = endpointOf(env, name);
      checkRuns(endpoint);
      sayWhatIsDown(env).catch(() => {}); // beside the query: it holds up nothing
      const port = endpoint.pg_port;
      const target = { host: LOOPBACK, port, user: options.username, database: options.dbname };
      const commands = options.command ?? [];
      if (options.psql) {
        const code = await runPsql([
          `--host=${target.host}`,
          `--port=${port}`,
          `--username=${target.user}`,
          ...commands.flatMap((sql) => ["-c", sql]),
          target.database,
        ]);
        if (code !== undefined) {
          Deno.exitCode = code;
          return;
        }
      }
      const { runCommands, runPrompt } = await import("../sql_client.ts");
      const succeeded = commands.length > 0
        ? await runCommands(target, commands)
        : await runPrompt(target);
      if (!succeeded) Deno.exitCode = 1;
    });
  return withExamples(
    made as unknown as Command,
    ["neon sql", "a prompt on main"],
    ["neon sql dev -d app -U alice"],
    ['neon sql main -c "create table t(key int)" -c "select * from t"'],
  );
}
