/**
 * The files of one endpoint on its host.
 *
 *   endpoints/<name>/
 *     state                  what to adopt after a crash of the host (endpoint_state.ts)
 *     postgresql.conf        the user's own settings; made once, then only read
 *     postgresql.auto.conf   ALTER SYSTEM of the last run, while no pgdata holds it
 *     slots                  logical slots that the storage has, while they may change
 *     postgres.log
 *     pgdata/                a cache: laid out anew from a basebackup at every start
 *     arena                  which pages of pgdata are there (lazy_files/); Postgres's token
 *     passfile               the token of a replica for safekeepers, where they want one
 *     socket/                the private Unix socket, for replication to us
 *     discarded-<n>/         an old pgdata on its way out
 *
 * No content of an old pgdata is ever used again, but after an orderly stop its files may be, where
 * no directory is ready: to make a thousand files takes much longer than to empty them. After a
 * crash a process of the old Postgres may still be about to write: then the whole directory goes.
 *
 * When the host is root, what Postgres uses belongs to its user.
 */
import { dirname, join } from "node:path";
import { makePassableDirectory, replaceFile, syncDirectory } from "../libs/utils/durable.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { clearDataDirectory } from "./lazy_files/lay_out.ts";
import type { EmptyFiles, ReadyDirectories } from "./ready_directories.ts";

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

/** What a start finds. */
export interface Prepared {
  /** The ALTER SYSTEM settings of the last run, empty if there are none. */
  readonly savedSettings: Uint8Array;
  /** All that is in pgdata, if that is known: files that need not be emptied. */
  readonly empty: EmptyFiles | undefined;
}

/** Paths and preparation of one endpoint's files. */
export class EndpointDirectory {
  readonly root: string;
  readonly pgdata: string;
  readonly arena: string;
  readonly passfile: string;
  readonly stateFile: string;
  readonly slotsFile: string;
  readonly logFile: string;
  readonly userConf: string;
  readonly socketDirectory: string;
  /** pgdata was left by a Postgres of which no process is left. */
  #reusable = false;
  #sweeping: Promise<void> = Promise.resolve();

  constructor(root: string) {
    this.root = root;
    this.pgdata = join(root, "pgdata");
    this.arena = join(root, "arena");
    this.passfile = join(root, "passfile");
    this.stateFile = join(root, "state");
    this.slotsFile = join(root, "slots");
    this.logFile = join(root, "postgres.log");
    this.userConf = join(root, "postgresql.conf");
    this.socketDirectory = join(root, "socket");
  }

  /** Makes the endpoint's directory itself, among those of the others; sync() is to follow. */
  create(): void {
    makePassableDirectory(this.root);
    if (exists(this.userConf)) return;
    Deno.writeTextFileSync(this.userConf, USER_CONF);
    Deno.chmodSync(this.userConf, 0o644); // PostgreSQL's user reads it, whatever our umask is
  }

  /**
   * Makes a pgdata (0700) without content for a start: one that `ready` has, or else directories
   * and relation files to be emptied, if there are any.
   */
  prepare(owner: FileOwner | undefined, ready: ReadyDirectories): Prepared {
    this.create();
    if (!this.#reusable) this.discardData();
    const empty = this.#takeReady(owner, ready);
    this.#reusable = false;
    if (empty === undefined) clearDataDirectory(this.pgdata);
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
    const savedSettings = ifThere(() => Deno.readFileSync(join(this.root, SAVED_CONF)));
    return {
      savedSettings: savedSettings ?? new Uint8Array(0),
      empty,
    };
  }

  /** To empty a thousand files takes longer than to move them away; they are removed later. */
  #takeReady(owner: FileOwner | undefined, ready: ReadyDirectories): EmptyFiles | undefined {
    if (!exists(this.pgdata)) return ready.take(this.pgdata, owner);
    if (!ready.has(owner)) return undefined;
    if (!ready.recycle(this.pgdata, owner)) this.discardData();
    return ready.take(this.pgdata, owner);
  }

  /** Makes it durable that there is this directory. */
  sync(): Promise<void> {
    return syncDirectory(dirname(this.root));
  }

  /** Replaces the password file of Postgres's user: any server wants this token. */
  writePassfile(token: string, owner: FileOwner | undefined): void {
    const temporary = `${this.passfile}.new`;
    ifThere(() => Deno.removeSync(temporary));
    Deno.writeTextFileSync(temporary, `*:*:*:*:${token}\n`, { createNew: true, mode: 0o600 });
    give(temporary, owner);
    Deno.renameSync(temporary, this.passfile);
  }

  /**
   * After an orderly stop: keeps the ALTER SYSTEM settings, and pgdata to be emptied, unless
   * `ready` takes it.
   */
  retireData(owner: FileOwner | undefined, ready: ReadyDirectories): void {
    this.#saveSettings();
    this.#removeTokens();
    if (exists(this.pgdata)) this.#reusable = !ready.recycle(this.pgdata, owner);
  }

  /** Moves pgdata out of the way, after keeping its ALTER SYSTEM settings; `sweep` removes it. */
  discardData(): void {
    this.#saveSettings();
    this.#reusable = false;
    for (let n = 0; exists(this.pgdata); n++) {
      const target = join(this.root, `${DISCARDED}${n}`);
      if (!exists(target)) Deno.renameSync(this.pgdata, target);
    }
    this.#removeTokens();
  }

  #removeTokens(): void {
    ifThere(() => Deno.removeSync(this.arena));
    ifThere(() => Deno.removeSync(this.passfile));
  }

  #saveSettings(): void {
    const settings = ifThere(() => Deno.readFileSync(join(this.pgdata, SAVED_CONF)));
    if (settings !== undefined) replaceFile(join(this.root, SAVED_CONF), settings);
  }

  /**
   * Removes what `discardData` left; in the background, it may be many files. `release` is called
   * for each data directory whose Postgres was killed. Never rejects: the next start sweeps again.
   */
  sweep(release: (pgdata: string) => Promise<void>): Promise<void> {
    this.#sweeping = this.#sweeping.then(() => this.#sweep(release)).catch((thrown) => {
      log.warning("cannot sweep {root}: {why}", { root: this.root, why: messageOf(thrown) });
    });
    return this.#sweeping;
  }

  async #sweep(release: (pgdata: string) => Promise<void>): Promise<void> {
    // There is none before the first start has come so far as to make it
    const entries = ifThere(() => [...Deno.readDirSync(this.root)]) ?? [];
    for (const entry of entries) {
      if (!entry.name.startsWith(DISCARDED)) continue;
      const path = join(this.root, entry.name);
      try {
        // A Postgres that ends by itself removes it, behind all else
        if (exists(join(path, "postmaster.pid"))) await release(path);
      } catch (thrown) {
        log.warning("{name}: {why}", { name: entry.name, why: messageOf(thrown) });
      }
      try {
        await Deno.remove(path, { recursive: true });
      } catch (thrown) {
        log.warning("cannot remove {name}: {why}", { name: entry.name, why: messageOf(thrown) });
      }
    }
  }

  /** Removes everything. */
  async remove(): Promise<void> {
    await this.#sweeping;
    await Deno.remove(this.root, { recursive: true });
  }
}

/** Gives a file to Postgres's user. */
export function give(path: string, owner: FileOwner | undefined): void {
  if (owner !== undefined) Deno.chownSync(path, owner.uid, owner.gid);
}

/** True if there is something at `path`. */
export function exists(path: string): boolean {
  return ifThere(() => Deno.lstatSync(path)) !== undefined;
}
