/**
 * Which commands there are. Each is a file in commands/ and is loaded only when it is the one that
 * was asked for, so that `neon timeline list` and `neon endpoint start` do not pay for each other.
 */

/** A command by the name it has on the command line. */
interface CommandEntry {
  /** One line of `neon --help`. */
  summary: string;
  /** The part of that list it is in. */
  group: "Everyday:" | "Looking inside:" | "Single daemons:" | "Shell:";
  load: () => Promise<{ command(): unknown }>;
}

/** All commands, in the order in which help lists them. */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  quickstart: {
    summary: "from nothing to a running PostgreSQL in one command",
    group: "Everyday:",
    load: () => import("./commands/quickstart.ts"),
  },
  init: {
    summary: "make a new local Neon in .neon",
    group: "Everyday:",
    load: () => import("./commands/init.ts"),
  },
  start: {
    summary: "start all daemons; endpoints stay down",
    group: "Everyday:",
    load: () => import("./commands/start.ts"),
  },
  stop: {
    summary: "stop everything, endpoints first",
    group: "Everyday:",
    load: () => import("./commands/stop.ts"),
  },
  status: {
    summary: "show what is running",
    group: "Everyday:",
    load: () => import("./commands/status.ts"),
  },
  tenant: {
    summary: "create, list and configure tenants (clusters)",
    group: "Everyday:",
    load: () => import("./commands/tenant.ts"),
  },
  timeline: {
    summary: "create, branch, list and compact timelines (branches)",
    group: "Everyday:",
    load: () => import("./commands/timeline.ts"),
  },
  endpoint: {
    summary: "create, start, stop and list PostgreSQL servers",
    group: "Everyday:",
    load: () => import("./commands/endpoint.ts"),
  },
  mappings: {
    summary: "give a branch name to a timeline that exists",
    group: "Everyday:",
    load: () => import("./commands/mappings.ts"),
  },
  sql: {
    summary: "open an SQL prompt, or run commands",
    group: "Everyday:",
    load: () => import("./commands/sql.ts"),
  },
  logs: {
    summary: "show the logs of all, or of one",
    group: "Looking inside:",
    load: () => import("./commands/logs.ts"),
  },
  wal: {
    summary: "print, count and verify WAL",
    group: "Looking inside:",
    load: () => import("./commands/wal.ts"),
  },
  page: {
    summary: "print a page as of an LSN",
    group: "Looking inside:",
    load: () => import("./commands/page.ts"),
  },
  pageserver: {
    summary: "start, stop, restart or check the pageserver",
    group: "Single daemons:",
    load: () => import("./commands/pageserver.ts"),
  },
  safekeeper: {
    summary: "start, stop, list, replace, add and remove safekeepers",
    group: "Single daemons:",
    load: () => import("./commands/safekeeper.ts"),
  },
  "storage-broker": {
    summary: "start, stop, restart or check the storage broker",
    group: "Single daemons:",
    load: () => import("./commands/storage_broker.ts"),
  },
  compute: {
    summary: "start, stop, restart or check the compute host",
    group: "Single daemons:",
    load: () => import("./commands/compute.ts"),
  },
  completion: {
    summary: "print a completion script for bash, zsh or fish",
    group: "Shell:",
    load: () => import("./commands/completion.ts"),
  },
};

/** Other spellings that scripts written for Neon use. */
const ALIASES: Readonly<Record<string, string>> = { storage_broker: "storage-broker" };

/** The name that a command is listed under, however it was spelled. */
export function commandName(spelled: string): string {
  return Object.hasOwn(ALIASES, spelled) ? ALIASES[spelled]! : spelled;
}

/** The command that is listed under a name. */
export function commandOf(name: string | undefined): CommandEntry | undefined {
  return name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
}
