/**
 * The house rules as tests: who may import whom, no clocks or randomness in the pure cores, no dead
 * exports, every file introduced by a comment and short enough to be one idea.
 */
import assert from "node:assert/strict";
import { dirname, join, normalize, relative } from "node:path";

const ROOT = normalize(join(import.meta.dirname!, ".."));
const ROLES = ["broker", "safekeeper", "pageserver", "compute", "proxy"] as const;
const CODE_ROOMS = ["libs", ...ROLES, "cli", "tests", "bench"] as const;

/** Lines of a file before it needs a reason at its top ("Longer than 500 lines because ..."). */
const FILE_LINES_MAX = 500;
/** Columns, in code and comments alike. */
const LINE_WIDTH_MAX = 100;

/** Files and folders whose code must be a function of its input alone. */
const PURE = [
  "libs/postgres/",
  "libs/safekeeper_protocol/",
  "safekeeper/acceptor.ts",
  "safekeeper/wal_backup_plan.ts",
  "safekeeper/peer_recovery.ts",
  "safekeeper/joined_appends.ts",
  "safekeeper/publish_pace.ts",
  "safekeeper/pull_plan.ts",
  "safekeeper/timeline_core.ts",
  "safekeeper/wal_positions.ts",
  "compute/source_choice.ts",
  "compute/wal_proposer/backpressure.ts",
  "compute/wal_proposer/commit_stall.ts",
  "compute/wal_proposer/conversation.ts",
  "compute/wal_proposer/peers.ts",
  "compute/wal_proposer/proposer.ts",
  "compute/wal_proposer/quorum.ts",
  "pageserver/compaction/image_plan.ts",
  "pageserver/repository/layer_map.ts",
  "pageserver/walredo/",
];

/**
 * Who may look at the clock on the wall: it is for others to read, or theirs. It jumps, so that
 * nothing is measured with it; durations are differences of performance.now().
 */
const WALL_CLOCK = [
  "cli/control_plane/status.ts", // since when a daemon runs, as the control plane noted
  "cli/control_plane/tokens.ts", // since when and until when a token is good
  "compute/lsn_lease.ts", // leases say until when, and are renewed early enough by any clock
  "compute/wal_proposer/postgres_stream.ts", // times in replication messages
  "libs/auth/authenticator.ts", // tokens say until when
  "libs/remote_storage/config.ts", // ages of files
  "pageserver/main.ts", // leases, times in replication messages
  "safekeeper/wal_sender.ts", // times in replication messages
];

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly isTest: boolean;
}

function* walk(directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(ROOT, directory))) {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory && entry.name !== "testdata") yield* walk(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(join(ROOT, path));
    return true;
  } catch {
    return false;
  }
}

function loadSources(): SourceFile[] {
  const paths = ["mod.ts", ...CODE_ROOMS.filter(exists).flatMap((room) => [...walk(room)])];
  return paths.filter(exists).map((path) => ({
    path,
    text: Deno.readTextFileSync(join(ROOT, path)),
    isTest: /_test\.ts$|^tests\/|^bench\/|_fixture\.ts$/.test(path),
  }));
}

const SOURCES = loadSources();
const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g;

/** Own files that `file` imports, as paths from the root. */
function ownImports(file: SourceFile): string[] {
  const found: string[] = [];
  for (const match of file.text.matchAll(IMPORT)) {
    const specifier = match[1] ?? match[2]!;
    if (!specifier.startsWith(".")) continue;
    found.push(relative(ROOT, join(ROOT, dirname(file.path), specifier)));
  }
  return found;
}

function roomOf(path: string): string {
  return path.startsWith("libs/") ? path.split("/").slice(0, 2).join("/") : path.split("/")[0]!;
}

/** Why `from` must not import `to`, or undefined where it may. */
function forbiddenImport(from: string, to: string): string | undefined {
  const source = roomOf(from);
  const target = roomOf(to);
  if (source === target || from === "mod.ts") return undefined;
  if (source === "libs/utils") return "libs/utils imports nothing of ours";
  if (source.startsWith("libs/")) {
    return target.startsWith("libs/") ? undefined : "libs import only libs";
  }
  if (target.startsWith("libs/")) return undefined;
  const isRole = (room: string) => (ROLES as readonly string[]).includes(room);
  if (isRole(source)) {
    if (isRole(target) && to === `${target}/client.ts`) return undefined;
    return `a role imports libs and other roles' client.ts, not ${to}`;
  }
  if (source === "cli" && isRole(target) && to !== `${target}/client.ts`) {
    return "the CLI imports a role's client.ts only; it starts main.ts as a process";
  }
  return undefined;
}

Deno.test("imports point down: libs, then roles through their clients, then the CLI", () => {
  const offences: string[] = [];
  for (const file of SOURCES) {
    if (file.isTest) continue;
    for (const target of ownImports(file)) {
      const why = forbiddenImport(file.path, target);
      if (why !== undefined) offences.push(`${file.path} imports ${target}: ${why}`);
    }
  }
  assert.deepEqual(offences, []);
});

Deno.test("no duration is measured with a clock that may jump", () => {
  const looking = SOURCES.filter(({ isTest, text }) =>
    !isTest && /\bDate\.now\b|\bnew Date\(\)/.test(text)
  );
  assert.deepEqual(looking.map(({ path }) => path).sort(), WALL_CLOCK);
});

Deno.test("pure cores use no clock, no randomness, no timers and no I/O", () => {
  const banned =
    /\bDate\.now\b|\bnew Date\b|\bMath\.random\b|\bperformance\.now\b|\bsetTimeout\b|\bsetInterval\b|\bgetRandomValues\b|\bDeno\.(?!test\b)\w+/;
  const offences: string[] = [];
  for (const file of SOURCES) {
    if (file.isTest || !PURE.some((prefix) => file.path.startsWith(prefix))) continue;
    const text = withoutComments(file.text);
    const match = banned.exec(text);
    if (match !== null) offences.push(`${file.path}: ${match[0]}`);
  }
  assert.deepEqual(offences, []);
});

Deno.test("every export is used by another file", () => {
  const declaration =
    /^export (?:declare )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm;
  const words = new Map<string, Set<string>>();
  for (const file of SOURCES) {
    for (const word of new Set(file.text.match(/\b\w+\b/g) ?? [])) {
      const files = words.get(word) ?? new Set();
      words.set(word, files.add(file.path));
    }
  }
  const dead: string[] = [];
  for (const file of SOURCES) {
    if (file.path === "mod.ts") continue;
    for (const match of file.text.matchAll(declaration)) {
      if (words.get(match[1]!)!.size === 1) dead.push(`${file.path}: ${match[1]}`);
    }
  }
  assert.deepEqual(dead, []);
});

Deno.test("every file is reached by an import, is an entry point or is a test", () => {
  const reached = new Set(SOURCES.flatMap(ownImports));
  const entry =
    /(^|\/)(main|mod|build)\.ts$|_test\.ts$|_worker\.ts$|^bench\/|\/bench\.ts$|_bench\.ts$/;
  const mentioned = (path: string) =>
    SOURCES.some((file) => file.path !== path && file.text.includes(path.split("/").at(-1)!));
  const orphans = SOURCES.map((file) => file.path)
    .filter((path) => !reached.has(path) && !entry.test(path) && !mentioned(path));
  assert.deepEqual(orphans, []);
});

Deno.test("every file opens with a comment that says what it is", () => {
  const silent = SOURCES.filter((file) =>
    !file.isTest && file.path !== "mod.ts" && !/^(#!.*\n)?\s*\/\*\*/.test(file.text)
  );
  assert.deepEqual(silent.map((file) => file.path), []);
});

Deno.test("ARCHITECTURE.md names files and folders that are there", () => {
  const named = [...Deno.readTextFileSync(join(ROOT, "ARCHITECTURE.md")).matchAll(/`([^`\s]+)`/g)]
    .map((match) => match[1]!)
    .filter((name) => /^[\w/]+(\.(ts|c|h)|\/)$/.test(name));
  assert.ok(named.length > 40, "the map names the files that it tells of");
  const entries = new Set<string>();
  for (const room of [...CODE_ROOMS, "docs"].filter(exists)) collectEntries(room, entries);
  const missing = named.filter((name) =>
    ![...entries].some((path) => path === name || path.endsWith(`/${name}`))
  );
  assert.deepEqual(missing.filter((name) => !exists(name)), []);
});

/** All paths below a folder, folders with a slash behind them. */
function collectEntries(folder: string, into: Set<string>): void {
  into.add(`${folder}/`);
  for (const entry of Deno.readDirSync(join(ROOT, folder))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) collectEntries(path, into);
    else into.add(path);
  }
}

Deno.test("files and lines keep their limits", () => {
  const offences: string[] = [];
  for (const file of SOURCES) {
    const lines = file.text.split("\n");
    const reason = /Longer than \d+ lines because/.test(file.text.slice(0, 2000));
    if (lines.length > FILE_LINES_MAX + 1 && !reason) {
      offences.push(`${file.path}: ${lines.length} lines`);
    }
    lines.forEach((line, i) => {
      if (line.length > LINE_WIDTH_MAX && !/["'`/]\S{60,}|https?:|=> |\/.*\/[gimsuy]*/.test(line)) {
        offences.push(`${file.path}:${i + 1}: ${line.length} columns`);
      }
    });
  }
  assert.deepEqual(offences, []);
});

Deno.test("paths of our files are no pathnames of URLs, where spaces are %20", () => {
  const offences = SOURCES.filter((file) =>
    /import\.meta\.(url|resolve\([^)]*\))\)\.pathname/.test(withoutComments(file.text))
  );
  assert.deepEqual(offences.map((file) => file.path), []);
});

Deno.test("nothing is left for later", () => {
  const offences = SOURCES.filter((file) =>
    file.path !== "tests/tidy_test.ts" && /\b(TODO|FIXME|XXX|HACK)\b/.test(file.text)
  );
  assert.deepEqual(offences.map((file) => file.path), []);
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");
}
