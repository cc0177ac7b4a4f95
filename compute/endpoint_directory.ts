/**
 * The files of one endpoint on its host.
 *
 *   endpoints/<name>/
 *     state                  what to adopt after a crash of the host (endpoint_state.ts)
 *     postgresql.conf        the user's own settings; made once, then only read
 *     postgresql.auto.conf   ALTER SYSTEM of the last run, while no pgdata holds it
 *     postgres.log
 *     pgdata/                a cache: made anew from a basebackup at every start
 *     arena                  which pages of pgdata are there (lazy_files/)
 *     socket/                the private Unix socket, for replication to us
 *     discarded-<n>/         an old pgdata on its way out
 *
 * When the host is root, what Postgres uses belongs to its user.
 */
import { join } from "node:path";
import { makeDirectory, replaceFile } from "../libs/utils/durable.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";

const log = logger("compute", "files");

/** Whom files are given to; undefined when the host is an ordinary user. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

const USER_CONF = `# Settings of this endpoint, yours to edit; read at every start and reload.
# They go before what "neon" sets, except for what its storage depends on.
`;

const SAVED_CONF = "postgresql.auto.conf";
const DISCARDED = "discarded-";

/** Paths and preparation of one endpoint's files. */
export class EndpointDirectory {
  readonly root: string;
  readonly pgdata: string;
  readonly arena: string;
  readonly stateFile: string;
  readonly logFile: string;
  readonly userConf: string;
  readonly socketDirectory: string;

  constructor(root: string) {
    this.root = root;
    this.pgdata = join(root, "pgdata");
    this.arena = join(root, "arena");
    this.stateFile = join(root, "state");
    this.logFile = join(root, "postgres.log");
    this.userConf = join(root, "postgresql.conf");
    this.socketDirectory = join(root, "socket");
  }

  /** Makes the endpoint's directory itself. */
  create(): void {
    makeDirectory(this.root);
    if (!exists(this.userConf)) Deno.writeTextFileSync(this.userConf, USER_CONF, { mode: 0o644 });
  }

  /**
   * Makes an empty pgdata (0700) for a start; an old one is moved away, its ALTER SYSTEM settings are
   * kept. Returns those settings, empty if there are none.
   */
  prepare(owner: FileOwner | undefined): Uint8Array {
    this.create();
    this.discardData();
    for (const path of [this.pgdata, this.socketDirectory]) {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
      give(path, owner);
    }
    for (const entry of Deno.readDirSync(this.socketDirectory)) {
      Deno.removeSync(join(this.socketDirectory, entry.name));
    }
    const log = Deno.openSync(this.logFile, { append: true, create: true, mode: 0o640 });
    log.close();
    give(this.logFile, owner);
    return readIfThere(join(this.root, SAVED_CONF)) ?? new Uint8Array(0);
  }

  /** Moves pgdata out of the way, after keeping its ALTER SYSTEM settings; removes it later. */
  discardData(): void {
    const settings = readIfThere(join(this.pgdata, SAVED_CONF));
    if (settings !== undefined) replaceFile(join(this.root, SAVED_CONF), settings);
    for (let n = 0; exists(this.pgdata); n++) {
      const target = join(this.root, `${DISCARDED}${n}`);
      if (!exists(target)) Deno.renameSync(this.pgdata, target);
    }
    removeIfThere(this.arena);
  }

  /** Removes what `discardData` left; in the background, it may be many files. */
  async sweep(): Promise<void> {
    for (const entry of [...Deno.readDirSync(this.root)]) {
      if (!entry.name.startsWith(DISCARDED)) continue;
      try {
        await Deno.remove(join(this.root, entry.name), { recursive: true });
      } catch (thrown) {
        log.warning("cannot remove {name}: {why}", { name: entry.name, why: messageOf(thrown) });
      }
    }
  }

  /** Removes everything. */
  async remove(): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }
}

/** Gives a file to Postgres's user. */
export function give(path: string, owner: FileOwner | undefined): void {
  if (owner !== undefined) Deno.chownSync(path, owner.uid, owner.gid);
}

/** True if there is something at `path`. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

function readIfThere(path: string): Uint8Array | undefined {
  try {
    return Deno.readFileSync(path);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}
