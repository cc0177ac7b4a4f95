/**
 * The commands that every kind of daemon has: start, stop, restart and status. One file a kind says
 * which daemon is meant and how it is started.
 */
import { Command } from "./command.ts";
import { displayPath, type Environment, openEnvironment } from "./control_plane/environment.ts";
import { type LifecycleReport, roleStatus, stopRole } from "./control_plane/lifecycle.ts";
import type { Role } from "./control_plane/roles.ts";
import { START_TIMEOUT_MS, type Started, type StopMode } from "./control_plane/supervisor.ts";
import { withExamples } from "./help.ts";
import { count, duration, stopMode } from "./options.ts";
import { printHint, printJson, printLine } from "./output.ts";
import { waitingFor } from "./waiting.ts";

/** One kind of daemon. */
interface RoleKind {
  /** The command's name. */
  name: string;
  description: string;
  /** How one of several is named on the command line: not at all, by --id, or as an argument. */
  idAs: "none" | "option" | "argument";
  role(env: Environment, id: number): Role;
  start(env: Environment, id: number, timeoutMs: number): Promise<Started>;
  /** How a restart ends the old process, unless --mode says otherwise. */
  restartBy: StopMode | "kill";
}

/** The line that announces the start of a daemon, as Neon words it. */
function startingLine(env: Environment, role: Role): string {
  const directory = displayPath(role.directory);
  const address = role.listen[0];
  if (role.name === "storage_broker") return `Starting neon broker at ${address}`;
  if (role.name.startsWith("safekeeper")) {
    return `Starting safekeeper at '${address}' in '${directory}'`;
  }
  if (role.name === "compute") return `Starting compute host at '${address}' in '${directory}'`;
  const id = env.config.pageservers
    .find((pageserver) => pageserver.listen_pg_addr === address)?.id;
  return `Starting pageserver node ${id} at '${address}' in "${displayPath(env.repoDir)}"`;
}

/** Prints what happens while daemons start and stop. */
export function lifecyclePrinter(env: Environment): LifecycleReport {
  return {
    starting: (role) => printLine(startingLine(env, role)),
    started: (role, { pid, already }) =>
      printLine(`${role.name} ${already ? "is already running" : "started"}, pid: ${pid}`),
    stopping: (role, pid, mode) =>
      printLine(
        `Stopping ${role.name} with pid ${pid} ${mode === "fast" ? "gracefully" : "immediately"}`,
      ),
    stopped: (role, pid) =>
      pid === undefined
        ? printHint(`${role.name} is already stopped`)
        : printLine(`${role.name} stopped`),
  };
}

/** The id from the place where this kind of daemon has it. */
function idFrom(kind: RoleKind, argument: number | undefined, option: number | undefined): number {
  return (kind.idAs === "argument" ? argument : option) ?? 1;
}

/** A subcommand with the argument or option that names the daemon. */
function subcommand(kind: RoleKind, name: string, description: string) {
  const made = new Command(name).description(description);
  if (kind.idAs === "argument") {
    made.argument("[safekeeper]", "which one (default: 1)", count(1));
  } else if (kind.idAs === "option") made.option("--id <id>", "which one (default: 1)", count(1));
  const id = { none: "", option: " --id 1", argument: " 1" }[kind.idAs];
  return withExamples(made, [`neon ${kind.name} ${name}${id}`]);
}

async function start(env: Environment, kind: RoleKind, id: number, timeoutMs: number) {
  const role = kind.role(env, id);
  const printer = lifecyclePrinter(env);
  printer.starting?.(role);
  const started = kind.start(env, id, timeoutMs);
  printer.started?.(role, await waitingFor(`Waiting for ${role.name}`, started));
}

/** Options of the subcommands, whichever of them it has. */
interface RoleOptions {
  id?: number;
  mode?: "fast" | "immediate";
  startTimeout?: number;
  json?: boolean;
}

async function status(role: Role, json: boolean): Promise<void> {
  const found = await roleStatus(role);
  if (json) printJson(found);
  else if (found.status === "running") {
    printLine(`${role.name} is up and running, pid: ${found.pid}`);
  } else printHint(`${role.name} is ${found.status}: see ${displayPath(role.logFile)}`);
  if (found.status !== "running") Deno.exitCode = 1;
}

/** The command of one kind of daemon. */
export function roleCommand(kind: RoleKind): Command {
  const run =
    (act: (env: Environment, id: number, options: RoleOptions) => Promise<void>) =>
    async (...args: unknown[]) => {
      const argument = kind.idAs === "argument" ? args[0] as number | undefined : undefined;
      const options = args[kind.idAs === "argument" ? 1 : 0] as RoleOptions;
      await act(openEnvironment(), idFrom(kind, argument, options.id), options);
    };
  const timeout = (made: ReturnType<typeof subcommand>) =>
    made.option("-t, --start-timeout <time>", "how long it may take", duration, START_TIMEOUT_MS);
  const mode = (made: ReturnType<typeof subcommand>) =>
    made.option(
      "-m, --mode <fast|immediate>",
      "immediate leaves work to the next start",
      stopMode,
      "fast" as const,
    );
  const restarting = async (env: Environment, id: number, options: RoleOptions) => {
    await waitingFor(
      "Stopping",
      stopRole(kind.role(env, id), options.mode ?? kind.restartBy, lifecyclePrinter(env)),
    );
    await start(env, kind, id, options.startTimeout ?? START_TIMEOUT_MS);
  };
  const all = [
    timeout(subcommand(kind, "start", "start it, unless it runs")).action(
      run((env, id, options) => start(env, kind, id, options.startTimeout ?? START_TIMEOUT_MS)),
    ),
    mode(subcommand(kind, "stop", "stop it, if it runs")).action(
      run((env, id, options) =>
        waitingFor(
          "Stopping",
          stopRole(kind.role(env, id), options.mode ?? "fast", lifecyclePrinter(env)),
        )
      ),
    ),
    timeout(subcommand(kind, "restart", "stop it and start it again; endpoints keep running"))
      .option("-m, --mode <fast|immediate>", "immediate leaves work to the next start", stopMode)
      .action(run(restarting)),
    subcommand(kind, "status", "tell whether it runs (exit code 1 if not)")
      .option("--json", "print JSON")
      .action(run((env, id, options) => status(kind.role(env, id), options.json === true))),
  ];
  const made = new Command(kind.name).description(kind.description);
  for (const sub of all) made.addCommand(sub as unknown as Command);
  return withExamples(
    made as unknown as Command,
    [`neon ${kind.name} status`],
    [`neon ${kind.name} restart`],
  );
}
