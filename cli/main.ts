/**
 * The `neon` command. Each command is a file in commands/ and is loaded only when it is the one
 * that was asked for, so that `neon --version` and `neon endpoint start` do not pay for each other.
 *
 * Exit codes: 0 done, 1 failed (one line on standard error says why and what to do), 2 wrong usage.
 */
import { VERSION } from "./version.ts";

/** A command by the name it has on the command line. */
interface CommandEntry {
  summary: string;
  load: () => Promise<{ command(): unknown }>;
}

const COMMANDS: Record<string, CommandEntry> = {
  init: {
    summary: "make a new local Neon in .neon (or $NEON_REPO_DIR)",
    load: () => import("./commands/init.ts"),
  },
  start: {
    summary: "start the broker, pageserver, safekeepers and compute host",
    load: () => import("./commands/start.ts"),
  },
  stop: {
    summary: "stop everything, endpoints first",
    load: () => import("./commands/stop.ts"),
  },
  status: {
    summary: "show what is running",
    load: () => import("./commands/status.ts"),
  },
  tenant: {
    summary: "create, list and configure tenants",
    load: () => import("./commands/tenant.ts"),
  },
  timeline: {
    summary: "create, branch and list timelines",
    load: () => import("./commands/timeline.ts"),
  },
  endpoint: {
    summary: "create, start, stop and list endpoints (PostgreSQL servers)",
    load: () => import("./commands/endpoint.ts"),
  },
  mappings: {
    summary: "give a branch name to a timeline that exists",
    load: () => import("./commands/mappings.ts"),
  },
  sql: {
    summary: "open an SQL prompt on an endpoint, or run one command there",
    load: () => import("./commands/sql.ts"),
  },
  wal: {
    summary: "print, count and verify WAL",
    load: () => import("./commands/wal.ts"),
  },
  page: {
    summary: "print a page as of an LSN, and how it was put together",
    load: () => import("./commands/page.ts"),
  },
  pageserver: {
    summary: "start, stop, restart or check the pageserver",
    load: () => import("./commands/pageserver.ts"),
  },
  safekeeper: {
    summary: "start, stop, restart or check one safekeeper",
    load: () => import("./commands/safekeeper.ts"),
  },
  "storage-broker": {
    summary: "start, stop, restart or check the storage broker",
    load: () => import("./commands/storage_broker.ts"),
  },
  compute: {
    summary: "start, stop, restart or check the compute host",
    load: () => import("./commands/compute.ts"),
  },
};

/** Other spellings that scripts written for Neon use. */
const ALIASES: Record<string, string> = { storage_broker: "storage-broker" };

async function run(given: string[]): Promise<void> {
  const args = normalise(given);
  const { Command, CommanderError } = await import("@commander-js/extra-typings");
  const program = new Command("neon")
    .description("Local Neon: PostgreSQL on storage that branches")
    .version(VERSION, "-V, --version")
    .option("--verbose", "show where an error came from")
    .showHelpAfterError('(add "--help" to see how it is used)')
    .exitOverride();
  const name = args.find((arg) => !arg.startsWith("-"));
  const wanted = name === undefined ? undefined : COMMANDS[ALIASES[name] ?? name];
  for (const [known, { summary, load }] of Object.entries(COMMANDS)) {
    if (wanted !== undefined && COMMANDS[known] !== wanted) continue;
    const command = (wanted === undefined
      ? new Command(known).description(summary)
      : (await load()).command()) as InstanceType<typeof Command>;
    program.addCommand(command);
    for (const [alias, of] of Object.entries(ALIASES)) {
      if (of === known) {
        command.alias(alias);
      }
    }
  }
  inheritExit(program as unknown as Nested);
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    // Help and version are not failures; everything else that commander finds is wrong usage.
    Deno.exitCode = thrown.exitCode === 0 ? 0 : 2;
  }
}

/** Takes --verbose out wherever it stands, and turns `help X` into `X --help`. */
function normalise(given: string[]): string[] {
  const args = given.filter((arg) => arg !== "--verbose");
  return args[0] === "help" ? [...args.slice(1), "--help"] : args;
}

/** The part of a commander command that inheritExit() needs. */
interface Nested {
  commands: readonly Nested[];
  exitOverride(): unknown;
  showHelpAfterError(message: string): unknown;
}

/** Commands made on their own do not inherit these settings from the program. */
function inheritExit(command: Nested): void {
  for (const sub of command.commands) {
    sub.exitOverride();
    sub.showHelpAfterError('(add "--help" to see how it is used)');
    inheritExit(sub);
  }
}

async function fail(thrown: unknown): Promise<void> {
  const { printError, printHint } = await import("./output.ts");
  printError(thrown instanceof Error ? thrown.message : String(thrown));
  if (Deno.args.includes("--verbose") && thrown instanceof Error) printHint(thrown.stack ?? "");
  Deno.exitCode = 1;
}

if (import.meta.main) {
  if (Deno.args.length === 1 && (Deno.args[0] === "--version" || Deno.args[0] === "-V")) {
    console.log(VERSION);
  } else {
    await run(Deno.args).catch(fail);
    Deno.exit(Deno.exitCode); // open keep-alive connections would hold us for a while
  }
}
