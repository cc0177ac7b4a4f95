/**
 * The table: commands that cannot work, what they are told, and with which exit code they end (1
 * unless it is wrong usage).
 */
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";

/** A command line and what is to come of it. */
export interface BadCommand {
  readonly args: readonly string[];
  /** Must be in the one line on standard error. */
  readonly says: RegExp;
  readonly code: 1 | 2;
}

/** What the commands are about: branches main and dev, endpoints main (runs) and idle (on dev). */
interface Known {
  readonly tenant: TenantId;
  readonly main: TimelineId;
}

const NOBODY = "0".repeat(32);

function fails(says: RegExp, ...args: string[]): BadCommand {
  return { args, says, code: 1 };
}

function misused(says: RegExp, ...args: string[]): BadCommand {
  return { args, says, code: 2 };
}

/** Names that are no good for anything. */
const BAD_NAMES: readonly (readonly [name: string, shown: RegExp])[] = [
  ["", /""/],
  [" ", /" "/],
  ["a b", /"a b"/],
  ["..", /"\.\."/],
  ["../x", /"\.\.\/x"/],
  ["a//b", /"a\/\/b"/],
  ["/etc", /"\/etc"/],
  ["-x", /-x/],
  ["a\nb", /"a\\nb"/],
  ["a\0b", /"a\\u0000b"/],
  ["\x1b[31mred", /"\\u001b\[31mred"/],
  ["tur\u202ened", /"tur\\u202ened"/],
  ["m\u0430in", /"m\u0430in"/],
  ["\uff4dain", /"\uff4dain"/],
  ["x".repeat(10_000), /"x{100}\.\.\."/],
];

/** Names of all kinds of things. */
export function badNames({ main }: Known): BadCommand[] {
  const isOption = (name: string) => name.startsWith("-");
  return BAD_NAMES.flatMap(([name, shown]) => [
    fails(shown, "timeline", "branch", "--branch-name", name),
    fails(shown, "timeline", "create", "--branch-name", name),
    fails(shown, "mappings", "map", "--branch-name", name, "--timeline-id", main),
    fails(shown, "timeline", "branch", "--branch-name", "x", "--ancestor-branch-name", name),
    fails(shown, "page", "get", "1663/5/1259", "0", "--branch", name),
    ...["create", "start", "stop"].map((action): BadCommand => ({
      args: ["endpoint", action, name],
      says: shown,
      code: isOption(name) ? 2 : 1,
    })),
    ...(isOption(name) ? [] : [fails(shown, "sql", name, "-c", "select 1")]),
  ]);
}

/** What there is none of, or one already. */
export function unknownThings({ tenant, main }: Known): BadCommand[] {
  const branch = ["timeline", "branch", "--branch-name", "new"];
  const taken = /Cannot use the branch name "(dev|main)": it already names timeline/;
  const noTenant = /Cannot find .*tenant 0{32}/;
  return [
    fails(/branch "nope".*it has dev, main/, ...branch, "--ancestor-branch-name", "nope"),
    fails(/branch "nope".*it has dev, main/, "endpoint", "create", "e", "--branch-name", "nope"),
    fails(/branch "nope".*it has dev, main/, "endpoint", "start", "e", "--branch-name", "nope"),
    fails(/branch "nope".*it has dev, main/, "wal", "dump", "--branch", "nope"),
    fails(taken, "timeline", "branch", "--branch-name", "dev"),
    fails(taken, "timeline", "create", "--branch-name", "main"),
    fails(taken, "mappings", "map", "--branch-name", "dev", "--timeline-id", main),
    fails(/it exists already; choose another id/, ...branch, "--timeline-id", main),
    fails(
      /it exists already; choose another id/,
      ...["timeline", "create", "--branch-name", "new", "--timeline-id", main],
    ),
    fails(/Cannot find timeline 0{32}/, ...mapping(NOBODY)),
    fails(/it exists already/, "tenant", "create", "--tenant-id", tenant),
    fails(noTenant, "tenant", "set-default", "--tenant-id", NOBODY),
    fails(noTenant, "tenant", "config", "--tenant-id", NOBODY),
    fails(noTenant, "tenant", "config", "--tenant-id", NOBODY, "-c", "gc_period:10m"),
    fails(noTenant, "timeline", "list", "--tenant-id", NOBODY),
    fails(noTenant, "timeline", "create", "--branch-name", "new", "--tenant-id", NOBODY),
    fails(noTenant, "endpoint", "list", "--tenant-id", NOBODY),
    fails(/of tenant 0{32}: it has none/, ...branch, "--tenant-id", NOBODY),
    fails(/of tenant 0{32}: it has none/, "endpoint", "create", "e", "--tenant-id", NOBODY),
    fails(/it is one of tenant/, "endpoint", "start", "idle", "--tenant-id", NOBODY),
    fails(/Cannot find endpoint "nope": there are idle, main/, "endpoint", "stop", "nope"),
    fails(/Cannot find endpoint "nope": there are idle, main/, "sql", "nope", "-c", "select 1"),
    fails(/endpoint "idle": it exists already/, "endpoint", "create", "idle"),
    fails(/it exists on timeline/, "endpoint", "start", "idle", "--branch-name", "main"),
    fails(/it exists as Primary/, "endpoint", "start", "idle", "--hot-standby", "true"),
    fails(/it has port \d+/, "endpoint", "start", "idle", "--pg-port", "1234"),
    fails(
      /endpoint "main" already is the primary .*make a branch/,
      ...["endpoint", "start", "second", "--branch-name", "main"],
    ),
    fails(/Cannot find safekeeper 7: known are 1/, "safekeeper", "start", "7"),
    fails(/Cannot find pageserver 9: known are 1/, "pageserver", "stop", "--id", "9"),
  ];
}

function mapping(timeline: string): string[] {
  return ["mappings", "map", "--branch-name", "new", "--timeline-id", timeline];
}

/** Positions that are no positions, or not on the branch. */
export function badPositions(): BadCommand[] {
  const branch = ["timeline", "branch", "--branch-name", "new", "--ancestor-start-lsn"];
  const page = ["page", "get", "1664/0/1262", "0", "--lsn"];
  const endpoint = ["endpoint", "start", "new", "--lsn"];
  const noLsn = ["", "0", "zz/zz", "0/123456789", "-1/0", "0/16B5A50 ", "FFFFFFFF/FFFFFFFF"];
  return [
    ...noLsn.flatMap((text) =>
      [branch, page, endpoint].map((args) => misused(/LSN|-1\/0/, ...args, text))
    ),
    ...[branch, page, endpoint].flatMap((args) => [
      fails(/at F\/0: it ends at 0\/[0-9A-F]+/, ...args, "F/0"),
      fails(/at 0\/8: it begins at 0\/[0-9A-F]+/, ...args, "0/8"),
    ]),
    fails(/both stays at an LSN and follows/, ...endpoint, "0/8", "--hot-standby", "true"),
    misused(/expected an LSN/, "wal", "dump", "--branch", "main", "--start", "x"),
    fails(/branch main is at/, "wal", "dump", "--branch", "main", "--start", "F/0"),
    fails(/it has \d+ blocks/, "page", "get", "1664/0/1262", "999999"),
    misused(/from 0 to 4294967294/, "page", "get", "1664/0/1262", "99999999999"),
    misused(/numbers up to 4294967295/, "page", "get", "1664/0/99999999999", "0"),
    fails(/it does not exist/, "page", "get", "1663/5/99999", "0"),
    fails(/relation "nope" does not exist/, "page", "get", "nope", "0"),
    fails(/database "nope" does not exist/, "page", "get", "pg_class", "0", "-d", "nope"),
  ];
}

/** Numbers, ports, versions, sizes and settings. */
export function badValues(): BadCommand[] {
  const port = ["endpoint", "create", "new", "--pg-port"];
  const setting = ["endpoint", "create", "new", "-c"];
  const tenantSetting = ["tenant", "create", "-c"];
  return [
    ...["0", "65536", "-1", "1e3", "abc", "", "\u0663", "99999999999999999999"]
      .map((text) => misused(/port.*from 1 to 65535/, ...port, text)),
    ...["13", "19", "99"].flatMap((version) => [
      fails(/supported major versions are 14/, "tenant", "create", "--pg-version", version),
      fails(
        /supported major versions are 14/,
        ...["timeline", "create", "--branch-name", "new", "--pg-version", version],
      ),
    ]),
    misused(/whole number/, "tenant", "create", "--pg-version", "seventeen"),
    misused(/32 hex digits/, "tenant", "create", "--tenant-id", "x"),
    misused(/32 hex digits/, "timeline", "list", "--tenant-id", "0".repeat(33)),
    fails(/use name=value/, ...setting, "x"),
    fails(/use name=value/, ...setting, "=1"),
    fails(/use name=value/, ...setting, "WORK_MEM=1MB"),
    fails(/control characters/, ...setting, "work_mem=1MB\nfsync=off"),
    fails(/form key:value/, ...tenantSetting, "gc_period"),
    fails(/there is no such setting/, ...tenantSetting, "gc_perjod:10m"),
    fails(/there is no such setting/, ...tenantSetting, "constructor:1"),
    fails(/expected a duration/, ...tenantSetting, "gc_period:soon"),
    fails(/expected a number of bytes/, ...tenantSetting, "checkpoint_distance:-5"),
    fails(/expected a number of bytes/, ...tenantSetting, "checkpoint_distance:1.5"),
    fails(/expected bytes/, ...tenantSetting, "checkpoint_distance:0"),
    fails(/true or false/, ...tenantSetting, "lazy_slru_download:maybe"),
    fails(/expected bytes/, "tenant", "config", "-c", "checkpoint_distance:0"),
    misused(/duration/, "start", "--start-timeout", "soon"),
    misused(/at most a day/, "start", "--start-timeout", "99999999999999999999s"),
    misused(/"fast" or "immediate"/, "stop", "-m", "slow"),
    misused(/"true" or "false"/, "endpoint", "create", "new", "--hot-standby", "maybe"),
    misused(/from 1 on/, "safekeeper", "status", "0"),
    misused(/expected main, fsm, vm or init/, "page", "get", "pg_class", "0", "-F", "zz"),
  ];
}

/** Command lines that are none. */
export function wrongUsage(): BadCommand[] {
  return [
    misused(/unknown command 'bogus'/, "bogus"),
    misused(/unknown command/, "endpoint", "bogus"),
    misused(/unknown command/, "\x1b]0;title\x07"),
    misused(/unknown option '--bogus'/, "status", "--bogus"),
    misused(/too many arguments/, "start", "extra"),
    misused(/missing required argument/, "endpoint", "start"),
    misused(/required option/, "timeline", "branch"),
    misused(/required option/, "tenant", "set-default"),
    ...[
      ["timeline", "branch", "--branch-name"],
      ["timeline", "branch", "--branch-name", "x", "--ancestor-start-lsn"],
      ["endpoint", "create", "x", "--pg-port"],
      ["endpoint", "create", "x", "-c"],
      ["tenant", "create", "--tenant-id"],
      ["stop", "-m"],
      ["sql", "-c"],
      ["start", "--start-timeout"],
      ["wal", "dump", "--branch"],
    ].map((args) => misused(/argument missing/, ...args)),
  ];
}

/** Of a directory that has a local Neon already. */
export function badInits(): BadCommand[] {
  return [
    fails(/it is there already.*--force/, "init"),
    fails(/still running; "neon stop" stops/, "init", "--force", "remove-all-contents"),
    misused(/Allowed choices/, "init", "--force", "maybe"),
    misused(/from 1 to 32/, "init", "--num-safekeepers", "0"),
    misused(/from 1 to 32/, "init", "--num-safekeepers", "1000000"),
    misused(/Cannot read it: No such file/, "init", "--config", "/no/such/file"),
    misused(/Cannot read it: Invalid TOML/, "init", "--config", "/etc/passwd"),
    misused(/expected a table/, "init", "--remote-storage", "x"),
  ];
}

/** Commands that need daemons, when none runs. */
export function ofStopped({ main }: Known): BadCommand[] {
  const stopped = /Cannot reach the pageserver at .*; "neon start" starts it/;
  return [
    fails(stopped, "tenant", "list"),
    fails(stopped, "tenant", "create"),
    fails(stopped, "tenant", "config"),
    fails(stopped, "timeline", "list"),
    fails(stopped, "timeline", "create", "--branch-name", "new"),
    fails(
      /safekeepers answer.*"neon start" starts them/,
      "timeline",
      "branch",
      "--branch-name",
      "new",
    ),
    fails(stopped, "mappings", "map", "--branch-name", "new", "--timeline-id", main),
    fails(stopped, "page", "get", "1664/0/1262", "0"),
    fails(
      /Cannot reach the compute host at .*; "neon start" starts it/,
      "endpoint",
      "start",
      "idle",
    ),
    fails(
      /Cannot reach the compute host at .*; "neon start" starts it/,
      "endpoint",
      "start",
      "new",
    ),
    fails(/it does not run; "neon endpoint start idle" starts it/, "sql", "idle", "-c", "select 1"),
    fails(/Cannot read the WAL .*"neon start" starts/, "wal", "dump", "--branch", "main"),
  ];
}

/** Commands that change something, where nothing may be written. */
export function ofReadOnly({ tenant }: Known): BadCommand[] {
  const refused = /Read-only file system; make it writable/;
  return [
    fails(refused, "endpoint", "create", "new"),
    fails(refused, "tenant", "set-default", "--tenant-id", tenant),
    fails(refused, "pageserver", "start"),
    fails(refused, "safekeeper", "start"),
    fails(refused, "init", "--force", "remove-all-contents"),
  ];
}

/** Everything but init, where there is no local Neon. */
export function ofNothing(): BadCommand[] {
  return [
    ["start"],
    ["stop"],
    ["status"],
    ["logs"],
    ["tenant", "list"],
    ["tenant", "create"],
    ["timeline", "list"],
    ["timeline", "branch", "--branch-name", "x"],
    ["endpoint", "list"],
    ["endpoint", "start", "x"],
    ["endpoint", "stop", "x"],
    ["mappings", "map", "--branch-name", "x", "--timeline-id", NOBODY],
    ["sql"],
    ["page", "get", "1664/0/1262", "0"],
    ["wal", "dump", "--branch", "main"],
    ["pageserver", "start"],
    ["safekeeper", "status"],
  ].map((args) => fails(/Cannot find a local Neon in .*: run "neon init" first/, ...args));
}
