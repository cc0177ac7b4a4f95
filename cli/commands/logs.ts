/** `neon logs [role] [id]`: the logs of daemons and of endpoints' PostgreSQL, in order of time. */
import { Argument, Command, InvalidArgumentError } from "../command.ts";
import { styleText } from "node:util";
import { openEnvironment, repoPath } from "../control_plane/environment.ts";
import { didYouMean } from "../control_plane/suggest.ts";
import { withExamples } from "../help.ts";
import type { LogEntry } from "../log_entries.ts";
import { LogFollower } from "../log_follow.ts";
import { endpointsDirectory, LOG_ROLES, type LogRole, logSources } from "../log_sources.ts";
import { count } from "../options.ts";
import { printHint, printLine } from "../output.ts";

/** Messages that are shown unless told otherwise. */
const MESSAGES = 100;

const COLOURS = ["cyan", "green", "yellow", "magenta", "blue"] as const;

function logRole(text: string): LogRole {
  const role = LOG_ROLES.find((known) => known === text.replace("_", "-"));
  if (role !== undefined) return role;
  throw new InvalidArgumentError(
    `expected ${LOG_ROLES.join(", ")}${didYouMean(text, LOG_ROLES)}`,
  );
}

/** The lines of a message, each with its source where there are several. */
function printer(names: string[], isColoured: boolean): (entry: LogEntry) => string {
  if (names.length === 1) return (entry) => entry.lines.join("\n");
  const colours = new Map<string, typeof COLOURS[number]>();
  const width = Math.max(...names.map((name) => name.length));
  return ({ source, lines }) => {
    const colour = colours.get(source) ?? COLOURS[colours.size % COLOURS.length]!;
    colours.set(source, colour);
    const plain = `${source.padEnd(width)} |`;
    const prefix = isColoured ? styleText(colour, plain) : plain;
    return lines.map((line) => `${prefix} ${line}`).join("\n");
  };
}

function jsonLine({ lines: _, ...entry }: LogEntry): string {
  return JSON.stringify(entry);
}

/** The command. */
export function command(): Command {
  const made = new Command("logs")
    .description("show the logs of all daemons and endpoints in order of time, or of one")
    .addArgument(
      new Argument("[role]", "only of this role (default: all)").choices(LOG_ROLES)
        .argParser(logRole),
    )
    .argument("[id]", "only of the endpoint of this name, or of the safekeeper with this id")
    .option("-f, --follow", "go on showing what is added, until interrupted")
    .option("-n, --lines <n>", "how many messages, counted from the last", count(0), MESSAGES)
    .option("--json", "print a JSON object for each message")
    .action(async (role, id, options) => {
      const env = openEnvironment();
      const sources = () => logSources(env, role, id);
      using follower = new LogFollower();
      const found = sources();
      const isColoured = Deno.stdout.isTerminal() && !Deno.noColor;
      const print = options.json ? jsonLine : printer(found.map(({ name }) => name), isColoured);
      const show = (entries: LogEntry[]) => {
        if (entries.length > 0) printLine(entries.map(print).join("\n"));
      };
      show(follower.tail(found, options.lines));
      if (found.length === 0) {
        printHint('there is no endpoint yet; "neon endpoint start" makes one');
      }
      if (!options.follow) return;
      const growing = role === undefined || (role === "endpoint" && id === undefined)
        ? [repoPath(env, "endpoints"), repoPath(env, "compute"), endpointsDirectory(env)]
        : [];
      await follower.follow(sources, growing, show);
    });
  return withExamples(
    made as unknown as Command,
    ["neon logs -n 20", "the last messages of all"],
    ["neon logs -f", "and whatever comes"],
    ["neon logs endpoint main", "PostgreSQL's own log"],
    ["neon logs safekeeper 2 --json"],
  );
}
