/**
 * What can come next on a command line: the shells' completion scripts (completion_scripts.ts) ask
 * `neon __complete WORDS...`, where the last word is the one that is being typed.
 *
 * The answer is a line each, "word<TAB>description", or ":files" or ":directories" where the shell
 * completes better. What an option or argument takes is read off its placeholder in the help:
 * <branch>, <endpoint>, <safekeeper>, <tenant>, <timeline>, <file>, <dir>, <path>, or <this|that>.
 * Names come from the state directory's files; no daemon is asked.
 */
import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { commandName, COMMANDS } from "./commands.ts";
import { branchTimeline, type Config } from "./control_plane/config.ts";
import { formatMode } from "./control_plane/endpoint_modes.ts";
import { listEndpointRecords } from "./control_plane/endpoint_records.ts";
import { type Environment, openEnvironment } from "./control_plane/environment.ts";
import { listTenantRecords, loadTenantRecord } from "./control_plane/tenant_records.ts";
import type { TenantId } from "../libs/utils/id.ts";
import { buildProgram } from "./program.ts";

/** A word that can come next. */
type Candidate = readonly [word: string, description: string];

/** What a place on the command line takes. */
interface Place {
  placeholder: string;
  choices?: readonly string[] | undefined;
}

/** What can come: words, or what the shell completes itself. */
type Candidates = readonly Candidate[] | ":files" | ":directories";

/** Lines for the shell. Never throws: a shell that asks for completions wants no errors. */
export async function completionLines(words: readonly string[]): Promise<string[]> {
  const { before, current } = joined(words);
  const candidates = await candidatesFor(before, current).catch(() => []);
  if (typeof candidates === "string") return [candidates];
  return candidates.filter(([word]) => word.startsWith(current))
    .map(([word, description]) => description === "" ? word : `${word}\t${description}`);
}

/** Undoes that bash splits words at "=" and ":". */
function joined(words: readonly string[]): { before: string[]; current: string } {
  const before: string[] = [];
  let skip = false;
  for (const [i, word] of words.slice(0, -1).entries()) {
    const follows = before.length > 0 && (word === "=" || word === ":");
    if (!follows && !skip) before.push(word);
    skip = follows && !before.at(-1)!.startsWith("--") && i < words.length - 2;
  }
  const current = words.at(-1) ?? "";
  return { before, current: current === "=" || current === ":" ? "" : current };
}

async function candidatesFor(given: readonly string[], current: string): Promise<Candidates> {
  const before = given[0] === "help" ? given.slice(1) : given;
  const first = before[0];
  const program = await buildProgram(first === undefined ? [] : [commandName(first)]);
  if (first === undefined) {
    if (current.startsWith("-")) return optionsOf(program as unknown as CommandUnknownOpts);
    const known = Object.entries(COMMANDS).map(([name, { summary }]): Candidate => [name, summary]);
    return [...known, ["help", "show the help of a command"]];
  }
  const top = program.commands.find((known) => known.name() === commandName(first));
  if (top === undefined) return [];
  const { command, waiting, position } = walk(top, before.slice(1));
  const tenant = tenantIn(before);
  if (waiting !== undefined) return candidatesOf(placeOf(waiting), tenant);
  const [, long, equals] = /^(--[^=]+)(=?)/.exec(current) ?? [];
  if (equals === "=") {
    const option = command.options.find((known) => known.long === long);
    const values = option === undefined ? [] : candidatesOf(placeOf(option), tenant);
    if (typeof values === "string") return values;
    return values.map(([word, description]) => [`${long}=${word}`, description]);
  }
  if (current.startsWith("-")) return optionsOf(command);
  if (command.commands.length > 0) {
    return command.commands.map((sub) => [sub.name(), sub.description()]);
  }
  const argument = command.registeredArguments[position];
  if (argument === undefined) return [];
  // "neon logs endpoint <TAB>": an id is one of what the word before it says
  const placeholder = argument.name() === "id" ? before.at(-1)! : argument.name();
  return candidatesOf({ placeholder, choices: argument.argChoices }, tenant);
}

/** Where the words lead: the command, the option whose value is next, the arguments so far. */
function walk(top: CommandUnknownOpts, words: readonly string[]) {
  let command = top;
  let waiting: Option | undefined;
  let position = 0;
  for (const word of words) {
    const sub = command.commands.find((known) => known.name() === word);
    if (waiting !== undefined) waiting = undefined;
    else if (word.startsWith("-")) waiting = takesNext(command, word);
    else if (sub === undefined) position++;
    else command = sub;
  }
  return { command, waiting, position };
}

/** The option that a word is, if its value is the next word. */
function takesNext(command: CommandUnknownOpts, word: string): Option | undefined {
  const option = command.options.find(({ long, short }) => word === long || word === short);
  return option?.required ? option : undefined;
}

function placeOf(option: Option): Place {
  const placeholder = /[<[]([^>\]]*)[>\]]/.exec(option.flags)?.[1] ?? "";
  return { placeholder, choices: option.argChoices };
}

function optionsOf(command: CommandUnknownOpts): Candidate[] {
  const own = command.options
    .flatMap(({ long, description }): Candidate[] => long ? [[long, description]] : []);
  return [...own, ["--help", "show this help"]];
}

/** The tenant that --tenant-id names. */
function tenantIn(words: readonly string[]): TenantId | undefined {
  const at = words.indexOf("--tenant-id");
  const named = at >= 0 ? words[at + 1] : words.find((word) => word.startsWith("--tenant-id="));
  return named?.replace("--tenant-id=", "") as TenantId | undefined;
}

function candidatesOf(place: Place, tenant: TenantId | undefined): Candidates {
  const { placeholder, choices = placeholder.includes("|") ? placeholder.split("|") : [] } = place;
  if (choices.length > 0) return choices.map((choice) => [choice, ""]);
  switch (placeholder) {
    case "file":
    case "path":
      return ":files";
    case "dir":
      return ":directories";
    case "branch":
      return branches(openEnvironment().config, tenant);
    case "endpoint":
      return endpoints(openEnvironment());
    case "safekeeper":
      return openEnvironment().config.safekeepers
        .map(({ id, pg_port }) => [String(id), `port ${pg_port}`]);
    case "tenant":
      return tenants(openEnvironment());
    case "timeline":
      return timelines(openEnvironment(), tenant);
    default:
      return [];
  }
}

function branches(config: Config, named: TenantId | undefined): Candidate[] {
  const tenant = named ?? config.default_tenant_id;
  return Object.keys(config.branch_name_mappings).sort().flatMap((name): Candidate[] => {
    if (tenant === undefined) return [[name, "branch"]];
    const timeline = branchTimeline(config, tenant, name);
    return timeline === undefined ? [] : [[name, `timeline ${timeline}`]];
  });
}

function endpoints(env: Environment): Candidate[] {
  return listEndpointRecords(env.repoDir)
    .map(({ endpoint_id, mode, pg_port }) => [endpoint_id, `${formatMode(mode)}, port ${pg_port}`]);
}

function tenants(env: Environment): Candidate[] {
  return listTenantRecords(env.repoDir)
    .map((id) => [id, id === env.config.default_tenant_id ? "the default tenant" : "tenant"]);
}

function timelines(env: Environment, named: TenantId | undefined): Candidate[] {
  const tenant = named ?? env.config.default_tenant_id;
  if (tenant === undefined) return [];
  const known = Object.entries(loadTenantRecord(env.repoDir, tenant).timelines);
  return known.map(([id, { pg_version }]) => [id, `PostgreSQL ${pg_version}`]);
}
