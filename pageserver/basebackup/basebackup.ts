/**
 * Base backups: the tar of a data directory as of any LSN, in which a clean shutdown at that LSN
 * has been synthesised (libs/postgres/wal/start_checkpoint.ts), so that stock PostgreSQL starts on
 * it without recovery.
 *
 *   lazy   directories, small files, SLRUs, relation maps, two-phase files, progress of replication
 *          origins, unlogged relations, and lazy_files.map for all other relations: the compute
 *          host lays out sparse files by it, and makes the WAL segment itself
 *   full   the same with all relation data and the WAL segment: boots as it is
 *
 * Either can be for a standby instead: it begins its replay with synthetic records that end exactly
 * at the LSN (libs/postgres/wal/standby_start.ts) and serves queries at once. One that `follows`
 * the timeline is given what is in progress there, and sees it when it commits. One that stays at
 * its LSN, which may be any, is not: what is in progress there is invisible to it for ever. A lazy
 * backup has these records in the file standby_start.
 *
 * global/pg_control comes last, so that a directory from an interrupted backup cannot be started.
 * PostgreSQL resets no unlogged relation after a clean shutdown, so each one's init fork is sent a
 * second time as its main fork, in place of whatever main fork there was.
 */
import { dirname } from "node:path";
import { encodeLazyFilesMap, LAZY_FILES_MAP_NAME } from "../../libs/basebackup/lazy_files_map.ts";
import { encodeStandbyStart, STANDBY_START_NAME } from "../../libs/basebackup/standby_start.ts";
import type { CheckPoint } from "../../libs/postgres/checkpoint.ts";
import type { CheckpointTracker } from "../../libs/postgres/checkpoint_tracker.ts";
import {
  DEFAULT_TABLESPACE,
  FORK_INIT,
  FORK_MAIN,
  GLOBAL_TABLESPACE,
  PAGE_SIZE,
  RELATION_SEGMENT_PAGES,
} from "../../libs/postgres/constants.ts";
import {
  encodeControlFile,
  shutdownControlFile,
  standbyControlFile,
  type WalParameters,
} from "../../libs/postgres/control_file.ts";
import { encodeOriginFile, ORIGIN_FILE } from "../../libs/postgres/replication_origin.ts";
import { relationSegmentPath, type RelTag } from "../../libs/postgres/relation.ts";
import { SlruKind, slruSegmentPath } from "../../libs/postgres/slru.ts";
import { twoPhaseFile, twoPhaseFileName } from "../../libs/postgres/two_phase.ts";
import type { WalIdentity } from "../../libs/postgres/wal/page_header.ts";
import { splitIntoSegments } from "../../libs/postgres/wal/sparse_segment.ts";
import {
  shortestRecordBefore,
  synthesizeStandbyWal,
} from "../../libs/postgres/wal/standby_start.ts";
import { startLsnAfter, synthesizeStartWal } from "../../libs/postgres/wal/start_checkpoint.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { type TarSink, TarWriter } from "../../libs/utils/tar_writer.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import { originProgressAt } from "../ingest/replication_origins.ts";
import { restoreTracker } from "../ingest/wal_ingest.ts";
import { carriedFiles } from "../carried_files.ts";
import { relmapKey, twophaseKey, twophaseXid } from "../repository/key.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { dataDirectories, EMPTY_FILES, FULL_BACKUP_CONFIGURATION, versionFile } from "./layout.ts";
import { runningTransactions } from "./running_transactions.ts";
import type { PageTarget } from "../walredo/types.ts";

/** Bytes of zeros written at once into a WAL segment. */
const ZERO_RUN_BYTES = 128 * 1024;
/** Two-phase keys go up to here: 2^53, the largest xid that is a safe integer. */
const XID_END = Number.MAX_SAFE_INTEGER;

/** What to back up. */
interface BasebackupOptions {
  readonly served: ServedTimeline;
  readonly reader: PageReader;
  /** An LSN that has arrived. */
  readonly lsn: Lsn;
  readonly kind: "lazy" | "full";
  /** "follows" needs the LSN at which the timeline stands. */
  readonly standby?: "follows" | "stays" | undefined;
}

/** One fork to send or to name in the map. */
interface Fork {
  readonly tag: RelTag;
  readonly blocks: number;
}

/**
 * One base backup. What it is of is settled when it is made, however long it takes to write.
 * Throws BadRequest where there can be none.
 */
export class Basebackup {
  readonly #options: BasebackupOptions;
  #tar!: TarWriter;
  readonly #checkPoint: CheckPoint;
  readonly #parameters: WalParameters;
  readonly #prevLsn: Lsn;
  readonly #standby: Standby | undefined;

  constructor(options: BasebackupOptions) {
    this.#options = options;
    const tracker = restoreTracker(options.served, options.lsn);
    this.#checkPoint = tracker.checkPoint;
    this.#parameters = tracker.parameters;
    this.#prevLsn = previousLsn(options);
    if (options.standby !== undefined) {
      this.#standby = synthesizeStandby(options, tracker, this.#checkPoint, this.#prevLsn);
    }
  }

  /** Writes the whole archive, once. Throws Corrupt if something at that LSN cannot be read. */
  async write(sink: TarSink): Promise<void> {
    const { kind } = this.#options;
    this.#tar = new TarWriter(sink);
    await this.#skeleton();
    await this.#slrus();
    await this.#databases();
    await this.#relations();
    await this.#twoPhaseFiles();
    await this.#replicationOrigins();
    await this.#carriedFiles();
    if (kind === "full") await this.#wal();
    await this.#controlFile();
    await this.#tar.finish();
  }

  async #skeleton(): Promise<void> {
    const { version } = this.#options.served;
    for (const path of dataDirectories(version)) await this.#tar.directory(path);
    await this.#tar.file("PG_VERSION", versionFile(version));
    for (const path of EMPTY_FILES) await this.#tar.file(path, new Uint8Array(0));
    if (this.#options.kind === "lazy") return;
    for (const [path, content] of FULL_BACKUP_CONFIGURATION) await this.#tar.file(path, content);
  }

  async #slrus(): Promise<void> {
    const { served, reader, lsn } = this.#options;
    for (const kind of Object.values(SlruKind)) {
      for (const { segment, blocks } of served.relations.slruSegments(kind, lsn)) {
        await this.#tar.beginFile(slruSegmentPath(kind, segment), blocks * PAGE_SIZE);
        for (let block = 0; block < blocks; block++) {
          await this.#tar.makeRoom(PAGE_SIZE);
          this.#appendPage(reader.slruPage(served, kind, segment, block, lsn));
        }
        await this.#tar.endFile();
      }
    }
  }

  async #databases(): Promise<void> {
    const { served, lsn } = this.#options;
    for (const { spc, db } of served.relations.databases(lsn)) {
      // Tablespaces of users are not carried: each of their relations is an error when it is read.
      if (spc !== DEFAULT_TABLESPACE) continue;
      await this.#tar.directory(`base/${db}`);
      await this.#tar.file(`base/${db}/PG_VERSION`, versionFile(served.version));
      await this.#relationMap(`base/${db}`, spc, db);
    }
    await this.#relationMap("global", GLOBAL_TABLESPACE, 0);
  }

  async #relationMap(directory: string, spc: number, db: number): Promise<void> {
    const { served, lsn } = this.#options;
    const map = served.timeline.getValue(relmapKey(spc, db), lsn);
    if (map !== undefined) await this.#tar.file(`${directory}/pg_filenode.map`, map);
  }

  async #relations(): Promise<void> {
    const { served, lsn, kind } = this.#options;
    const logged: Fork[] = [];
    const unlogged = new Set<string>();
    const initForks: Fork[] = [];
    served.relations.forEachRelation(lsn, (tag, blocks) => {
      if (tag.spc !== DEFAULT_TABLESPACE && tag.spc !== GLOBAL_TABLESPACE) return;
      const fork = { tag: { ...tag }, blocks };
      if (tag.fork !== FORK_INIT) {
        logged.push(fork);
      } else {
        initForks.push(fork);
        unlogged.add(relationName(tag));
      }
    });
    const stored = logged.filter(({ tag }) => !unlogged.has(relationName(tag)));
    for (const { tag, blocks } of initForks) {
      await this.#fork(tag, blocks, tag);
      if (this.#standby !== undefined) continue; // recovery resets it itself
      await this.#fork(tag, blocks, { ...tag, fork: FORK_MAIN });
    }
    if (kind === "full") {
      for (const { tag, blocks } of stored) await this.#fork(tag, blocks, tag);
      return;
    }
    const forks = stored.map(({ tag, blocks }) => ({ ...tag, blocks }));
    const { prevLsn, pgMajor } = { prevLsn: this.#prevLsn, pgMajor: served.version.major };
    await this.#tar.file(LAZY_FILES_MAP_NAME, encodeLazyFilesMap({ lsn, prevLsn, pgMajor, forks }));
    if (this.#standby === undefined) return;
    await this.#tar.file(STANDBY_START_NAME, encodeStandbyStart(this.#standby));
  }

  /** A page is the reader's until the next one is read, by whomever: it is copied at once. */
  #appendPage({ bytes, offset }: PageTarget): void {
    this.#tar.appendNow(bytes.subarray(offset, offset + PAGE_SIZE));
  }

  /** Sends the pages of `source` as the segment files of `target`. */
  async #fork(source: RelTag, blocks: number, target: RelTag): Promise<void> {
    const { served, reader, lsn } = this.#options;
    const object = served.relations.interner.relation(
      source.spc,
      source.db,
      source.rel,
      source.fork,
    );
    const segments = Math.max(1, Math.ceil(blocks / RELATION_SEGMENT_PAGES));
    for (let segment = 0; segment < segments; segment++) {
      const first = segment * RELATION_SEGMENT_PAGES;
      const end = Math.min(blocks, first + RELATION_SEGMENT_PAGES);
      await this.#tar.beginFile(relationSegmentPath(target, segment), (end - first) * PAGE_SIZE);
      for (let block = first; block < end; block++) {
        await this.#tar.makeRoom(PAGE_SIZE);
        this.#appendPage(reader.relationPage(served, source, object, block, lsn));
      }
      await this.#tar.endFile();
    }
  }

  async #twoPhaseFiles(): Promise<void> {
    const { served, lsn } = this.#options;
    const files: { name: string; content: Uint8Array }[] = [];
    served.timeline.scan(twophaseKey(0), twophaseKey(XID_END), lsn, (key, content) => {
      files.push({ name: twoPhaseFileName(twophaseXid(key), served.version), content });
    });
    for (const { name, content } of files) {
      await this.#tar.file(`pg_twophase/${name}`, twoPhaseFile(content));
    }
  }

  async #replicationOrigins(): Promise<void> {
    const { served, lsn } = this.#options;
    const progress = originProgressAt(served.timeline, lsn);
    if (progress.size > 0) await this.#tar.file(ORIGIN_FILE, encodeOriginFile(progress));
  }

  /**
   * What PostgreSQL keeps outside its WAL. Logical slots need the WAL before the start, which only
   * who lays out a lazy backup can get, and are of no use without their snapshots, or these without
   * slots. A standby has none of it: slots are the primary's, and recovery discards statistics.
   */
  async #carriedFiles(): Promise<void> {
    if (this.#standby !== undefined) return;
    const { served, lsn, kind } = this.#options;
    const files = carriedFiles(served.timeline, lsn);
    const withSlots = kind === "lazy" && files.some((file) => file.kind === "slot");
    for (const file of files) {
      if (file.kind !== "statistics" && !withSlots) continue;
      if (file.kind === "slot") await this.#tar.directory(dirname(file.path));
      await this.#tar.file(file.path, file.content);
    }
  }

  async #wal(): Promise<void> {
    const { served, lsn } = this.#options;
    const { walSegmentSize } = served.control;
    const identity = walIdentity(served);
    const standby = this.#standby;
    const segments = standby !== undefined
      ? splitIntoSegments(identity, standby.start, standby.wal)
      : synthesizeStartWal({
        ...identity,
        x: lsn,
        prev: this.#prevLsn,
        checkPoint: this.#checkPoint,
      });
    const zeros = new Uint8Array(ZERO_RUN_BYTES);
    for (const { segmentName, pieces } of segments) {
      await this.#tar.beginFile(`pg_wal/${segmentName}`, walSegmentSize);
      let at = 0;
      const fillTo = async (offset: number) => {
        for (; at < offset;) {
          const run = Math.min(offset - at, ZERO_RUN_BYTES);
          await this.#tar.append(zeros.subarray(0, run));
          at += run;
        }
      };
      for (const { offset, bytes } of pieces) {
        await fillTo(offset);
        await this.#tar.append(bytes);
        at += bytes.length;
      }
      await fillTo(walSegmentSize);
      await this.#tar.endFile();
    }
  }

  async #controlFile(): Promise<void> {
    const { served, lsn } = this.#options;
    const { systemId, walSegmentSize, nonce, defaultCharSigned } = served.control;
    const { dataChecksumVersion } = served.control;
    const standby = this.#standby;
    const common = {
      version: served.version,
      systemId,
      parameters: this.#parameters,
      walSegmentSize,
      dataChecksumVersion,
      nonce,
      defaultCharSigned,
    };
    const control = standby !== undefined
      ? standbyControlFile({
        ...common,
        checkPointLsn: standby.start,
        checkPoint: standby.checkPoint,
        consistentLsn: standby.end,
      })
      : shutdownControlFile({
        ...common,
        start: startLsnAfter(lsn, walSegmentSize),
        checkPoint: this.#checkPoint,
      });
    await this.#tar.file("global/pg_control", encodeControlFile(control));
  }
}

function relationName(tag: RelTag): string {
  return `${tag.spc}/${tag.db}/${tag.rel}`;
}

/** What a standby begins with. */
type Standby = ReturnType<typeof synthesizeStandbyWal> & { readonly transactions: number };

function walIdentity({ control, version }: ServedTimeline): WalIdentity {
  return { systemId: control.systemId, version, segmentSize: control.walSegmentSize };
}

function synthesizeStandby(
  { served, reader, lsn, standby }: BasebackupOptions,
  tracker: CheckpointTracker,
  checkPoint: CheckPoint,
  prev: Lsn,
): Standby {
  const { timeline } = served;
  const follows = standby === "follows";
  if (follows && lsn !== timeline.lastRecordLsn) {
    throw new BadRequest(
      `Cannot take a base backup at ${formatLsn(lsn)} for a standby that follows the timeline: ` +
        `it stands at ${formatLsn(timeline.lastRecordLsn)}`,
    );
  }
  // Where a timeline begins nothing runs: its first server ends what its ancestor had in progress
  const onlyPrepared = !follows || lsn <= timeline.startLsn;
  const running = runningTransactions({ served, reader, tracker, lsn, onlyPrepared });
  const identity = walIdentity(served);
  const wal = synthesizeStandbyWal({ ...identity, lsn, prev, checkPoint, running });
  return { ...wal, transactions: running.xids.length };
}

/**
 * Start of the record that ends at the backup's LSN. For an LSN in the past it is not known; what
 * is synthesized there then begins a history of its own (a branch, a read-only endpoint), and
 * PostgreSQL only wants its previous-record pointer to be lower. A standby and a server that both
 * begin where the timeline does get the same answer.
 */
function previousLsn({ served, lsn }: BasebackupOptions): Lsn {
  const { lastRecordLsn, prevRecordLsn } = served.timeline;
  if (lsn === lastRecordLsn && prevRecordLsn !== INVALID_LSN) return prevRecordLsn;
  return shortestRecordBefore(lsn, served.control.walSegmentSize);
}
