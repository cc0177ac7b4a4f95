/**
 * Import of a cluster that was shut down cleanly: the tar of its data directory becomes the base
 * images of a root timeline.
 *
 *   base/<db>/<rel>[_fork][.<segment>], global/...   pages, and the size of each fork
 *   base/<db>/pg_filenode.map, global/...            relation maps; base/<db> a database
 *   pg_xact, pg_multixact/..., pg_commit_ts          pages of SLRU segments
 *   pg_twophase/<xid>                                prepared transactions
 *   pg_logical/replorigin_checkpoint                 progress of replication origins
 *   global/pg_control                                the control file, and where the WAL goes on
 *
 * Everything else (WAL, configuration, statistics, pg_internal.init, temporary relations) is left
 * out. The timeline starts at the end of the shutdown checkpoint's record.
 */
import { CheckpointTracker } from "../../libs/postgres/checkpoint_tracker.ts";
import {
  DEFAULT_TABLESPACE,
  GLOBAL_TABLESPACE,
  PAGE_SIZE,
  RELATION_SEGMENT_PAGES,
} from "../../libs/postgres/constants.ts";
import { type ControlFile, DbState, decodeControlFile } from "../../libs/postgres/control_file.ts";
import { parseRelationPath } from "../../libs/postgres/relation.ts";
import { decodeOriginFile, ORIGIN_FILE } from "../../libs/postgres/replication_origin.ts";
import { parseSlruSegmentPath } from "../../libs/postgres/slru.ts";
import { parseTwoPhaseFileName, twoPhaseMainData } from "../../libs/postgres/two_phase.ts";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { endOfCheckpointRecord } from "../../libs/postgres/wal/start_checkpoint.ts";
import { BadRequest, Conflict, Corrupt } from "../../libs/utils/errors.ts";
import type { TimelineId } from "../../libs/utils/id.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { type TarEntry, TarReader } from "../../libs/utils/tar.ts";
import { encodePosition } from "../ingest/replication_origins.ts";
import { encodeDatabase, encodeSize } from "../relations.ts";
import {
  CHECKPOINT_KEY,
  CONTROL_FILE_KEY,
  databaseKey,
  NEXT_XID_KEY,
  relationSizeKey,
  relmapKey,
  replicationOriginKey,
  slruSizeKey,
  twophaseKey,
} from "../repository/key.ts";
import type { KeyInterner, ObjectId } from "../repository/key_interner.ts";
import type { TimelineImporter } from "../repository/importer.ts";
import type { Tenant } from "../repository/tenant.ts";
import type { Timeline } from "../repository/timeline.ts";

/** Limit of a file that is read whole (relation maps, pg_control, two-phase files). */
const SMALL_FILE_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Creates root timeline `id` from the tar. The same cluster again gives the same timeline. Throws
 * BadRequest for a tar that is not a cleanly shut down cluster of `major`, Conflict if the timeline
 * exists and is another one.
 */
export async function importCluster(
  tenant: Tenant,
  interner: KeyInterner,
  id: TimelineId,
  major: number,
  tar: AsyncIterable<Uint8Array>,
): Promise<Timeline> {
  pgVersion(major); // an unsupported version is refused before anything is made
  const existing = tenant.timelines.get(id);
  if (existing !== undefined) {
    for await (const _chunk of tar); // the sender finishes its request
    if (existing.ancestorTimelineId !== undefined || existing.pgVersion !== major) {
      throw new Conflict(`Cannot import into timeline ${id}: it exists and is another one`);
    }
    return existing;
  }
  const importer = tenant.importTimeline(id, major);
  try {
    return await new ClusterImport(interner, importer, major).run(tar);
  } catch (thrown) {
    importer.abort();
    // What is wrong with the archive is the sender's to mend
    throw thrown instanceof Corrupt ? new BadRequest(thrown.message) : thrown;
  }
}

class ClusterImport {
  readonly #interner: KeyInterner;
  readonly #importer: TimelineImporter;
  readonly #major: number;
  readonly #page = new Uint8Array(PAGE_SIZE);
  /** Blocks of each fork, by "spc/db/rel/fork". */
  readonly #forks = new Map<
    string,
    { spc: number; db: number; rel: number; fork: number; blocks: number }
  >();
  readonly #databases = new Map<number, boolean>();
  /** Files of prepared transactions, by name. */
  readonly #prepared = new Map<string, Uint8Array>();
  #control: Uint8Array | undefined;

  constructor(interner: KeyInterner, importer: TimelineImporter, major: number) {
    this.#interner = interner;
    this.#importer = importer;
    this.#major = major;
  }

  async run(tar: AsyncIterable<Uint8Array>): Promise<Timeline> {
    const reader = new TarReader(tar);
    for (;;) {
      const entry = await reader.next();
      if (entry === undefined) break;
      await this.#entry(reader, entry);
    }
    await reader.drain(); // blocks behind the end mark
    return await this.#finish();
  }

  async #entry(reader: TarReader, entry: TarEntry): Promise<void> {
    const path = entry.name.replace(/^(\.\/)+/, "").replace(/\/+$/, "");
    if (/^pg_tblspc\/./.test(path)) {
      throw new BadRequest(`Cannot import a cluster with tablespaces: it has "${path}"`);
    }
    const database = /^base\/(\d+)$/.exec(path);
    if (database !== null) this.#database(Number(database[1]), false);
    if (entry.type !== "file") return;
    const relation = parseRelationPath(path);
    if (relation !== undefined) {
      const { tag, segment } = relation;
      const object = this.#interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
      const first = segment * RELATION_SEGMENT_PAGES;
      const blocks = first + await this.#pages(reader, path, entry.sizeBytes, object, first);
      const name = `${tag.spc}/${tag.db}/${tag.rel}/${tag.fork}`;
      const known = this.#forks.get(name)?.blocks ?? 0;
      this.#forks.set(name, { ...tag, blocks: Math.max(blocks, known) });
      if (tag.spc === DEFAULT_TABLESPACE) this.#database(tag.db, false);
      return;
    }
    await this.#otherFile(reader, path, entry.sizeBytes);
  }

  async #otherFile(reader: TarReader, path: string, sizeBytes: number): Promise<void> {
    if (path === "global/pg_control") {
      this.#control = await reader.wholeBody(SMALL_FILE_BYTES_MAX);
      return;
    }
    const map = /^(?:(global)|base\/(\d+))\/pg_filenode\.map$/.exec(path);
    if (map !== null) {
      const db = Number(map[2] ?? 0);
      const spc = map[1] === undefined ? DEFAULT_TABLESPACE : GLOBAL_TABLESPACE;
      if (spc === DEFAULT_TABLESPACE) this.#database(db, true);
      this.#importer.putValue(relmapKey(spc, db), await reader.wholeBody(SMALL_FILE_BYTES_MAX));
      return;
    }
    const slru = parseSlruSegmentPath(path);
    if (slru !== undefined) {
      const { kind, segment } = slru;
      const object = this.#interner.slru(kind, segment);
      const blocks = await this.#pages(reader, path, sizeBytes, object, 0);
      this.#importer.putValue(slruSizeKey(kind, segment), encodeSize(blocks));
      return;
    }
    if (path === ORIGIN_FILE) {
      for (
        const [origin, position] of decodeOriginFile(await reader.wholeBody(SMALL_FILE_BYTES_MAX))
      ) {
        this.#importer.putValue(replicationOriginKey(origin), encodePosition(position));
      }
      return;
    }
    const twoPhase = /^pg_twophase\/([^/]+)$/.exec(path);
    if (twoPhase === null) return;
    this.#prepared.set(twoPhase[1]!, await reader.wholeBody(SMALL_FILE_BYTES_MAX));
  }

  #database(db: number, hasRelmap: boolean): void {
    this.#databases.set(db, hasRelmap || this.#databases.get(db) === true);
  }

  /** Stores the pages of a file as blocks from `first` on; returns how many. */
  async #pages(
    reader: TarReader,
    path: string,
    sizeBytes: number,
    object: ObjectId,
    first: number,
  ): Promise<number> {
    if (sizeBytes % PAGE_SIZE !== 0) {
      throw new BadRequest(`Cannot import "${path}": ${sizeBytes} bytes are not whole pages`);
    }
    let block = first;
    let filled = 0;
    for await (const part of reader.body()) {
      let at = 0;
      while (at < part.length) {
        if (filled === 0 && part.length - at >= PAGE_SIZE) {
          this.#importer.putImage(object, block++, part, at, PAGE_SIZE);
          at += PAGE_SIZE;
          continue;
        }
        const count = Math.min(PAGE_SIZE - filled, part.length - at);
        this.#page.set(part.subarray(at, at + count), filled);
        filled += count;
        at += count;
        if (filled < PAGE_SIZE) continue;
        this.#importer.putImage(object, block++, this.#page, 0, PAGE_SIZE);
        filled = 0;
      }
    }
    return block - first;
  }

  async #finish(): Promise<Timeline> {
    const importer = this.#importer;
    const control = this.#checkedControl();
    for (const { spc, db, rel, fork, blocks } of this.#forks.values()) {
      importer.putValue(relationSizeKey(spc, db, rel, fork), encodeSize(blocks));
    }
    for (const [db, hasRelmap] of this.#databases) {
      importer.putValue(databaseKey(DEFAULT_TABLESPACE, db), encodeDatabase(hasRelmap));
    }
    importer.putValue(CONTROL_FILE_KEY, this.#control!);
    const { version, checkPoint, parameters } = control;
    const prepared = this.#putPrepared(control);
    const tracker = new CheckpointTracker(version, checkPoint, parameters, prepared);
    importer.putValue(CHECKPOINT_KEY, tracker.serialise());
    importer.putValue(NEXT_XID_KEY, tracker.serialiseNextXid());
    const start = endOfCheckpointRecord(control.checkPointLsn, control.walSegmentSize);
    return await importer.finish(start, control.checkPointLsn);
  }

  /** Stores the prepared transactions; returns their full xids. */
  #putPrepared({ version, checkPoint: { nextXid } }: ControlFile): number[] {
    return Array.from(this.#prepared, ([name, file]) => {
      const path = `pg_twophase/${name}`;
      const xid = parseTwoPhaseFileName(name, version, nextXid);
      if (xid === undefined || xid >= nextXid) {
        throw new BadRequest(
          `Cannot import "${path}": it names no transaction before the next, ${nextXid}`,
        );
      }
      this.#importer.putValue(twophaseKey(xid), twoPhaseMainData(file, path));
      return xid;
    });
  }

  #checkedControl(): ControlFile {
    if (this.#control === undefined) {
      throw new BadRequest("Cannot import the cluster: the tar has no global/pg_control");
    }
    const control = decodeControlFile(this.#control);
    if (control.version.major !== this.#major) {
      throw new BadRequest(
        `Cannot import the cluster: it is of version ${control.version.major}, not ${this.#major}`,
      );
    }
    const { state, checkPointLsn, checkPoint } = control;
    if (state !== DbState.SHUT_DOWN || checkPoint.redo !== checkPointLsn) {
      throw new BadRequest(
        `Cannot import the cluster: it was not shut down cleanly (state ${state}, checkpoint ` +
          `${formatLsn(checkPointLsn)}, redo ${formatLsn(checkPoint.redo)})`,
      );
    }
    return control;
  }
}
