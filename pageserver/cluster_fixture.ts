/**
 * A small cluster without PostgreSQL for tests: a root timeline imported from a tar that is made
 * here, and WAL records that are built, ingested and looked at.
 *
 *   base/5/16384 three pages filled with 1, 2, 3, and a visibility map of one page
 *   base/5/16385 one page; database 5 with a relation map, database 1; one page in each SLRU
 */
import { setImmediate } from "node:timers/promises";
import { encodeControlFile, shutdownControlFile } from "../libs/postgres/control_file.ts";
import type { RelTag } from "../libs/postgres/relation.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import {
  type BlockReference,
  buildRecord,
  WalWriter,
} from "../libs/postgres/wal/record_builder.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import { TarWriter } from "../libs/utils/tar_writer.ts";
import { importCluster } from "./import/import_cluster.ts";
import { WalIngest, type WalIngestOptions } from "./ingest/wal_ingest.ts";
import { PageReader } from "./page_service/page_reader.ts";
import { Reconstruction } from "./repository/reconstruction.ts";
import type { Tenant } from "./repository/tenant.ts";
import { TenantManager } from "./repository/tenant_manager.ts";
import type { Timeline } from "./repository/timeline.ts";
import { type ServedTimeline, servedTimeline } from "./served_timeline.ts";
import { WalReceivers } from "./wal_receiver/wal_receivers.ts";
import { defaultWalParameters, emptyCheckPoint } from "../libs/postgres/empty_cluster_fixture.ts";

export const VERSION = pgVersion(17);
export const SYSTEM_ID = 7_000_000_000_000_000_001n;
const SEGMENT_SIZE = 16 * 1024 * 1024;
const CHECKPOINT_LSN = 0x1000028 as Lsn;
export const HEAP: RelTag = { spc: 1663, db: 5, rel: 16384, fork: 0 };

/** What a record consists of; xid 700 unless given. */
export interface RecordSpec {
  rmid: number;
  info: number;
  xid?: number;
  main?: Uint8Array;
  blocks?: BlockReference[];
}

type Turns = Pick<WalIngestOptions, "now" | "pause">;

/** The cluster, its repository and its ingest. */
export class TestCluster {
  readonly directory = Deno.makeTempDirSync({ prefix: "pageserver-test-" });
  readonly manager: TenantManager;
  readonly reader = new PageReader(1024 * 1024);
  readonly now = (): number => performance.now();
  readonly pause = (): Promise<void> => setImmediate();
  tenant!: Tenant;
  timeline!: Timeline;
  served!: ServedTimeline;
  #ingest!: WalIngest;
  #wal!: WalWriter;
  #previous: Lsn = CHECKPOINT_LSN;

  private constructor() {
    this.manager = TenantManager.open(this.directory, { now: this.now, pause: this.pause });
  }

  static async create(): Promise<TestCluster> {
    const cluster = new TestCluster();
    cluster.tenant = await cluster.manager.attach(newTenantId(), 1);
    const timeline = await importCluster(
      cluster.tenant,
      cluster.manager.interner,
      newTimelineId(),
      17,
      clusterTar(),
    );
    cluster.follow(timeline);
    return cluster;
  }

  /** From here on records go to this timeline, by this clock and with these pauses. */
  follow(timeline: Timeline, { now, pause }: Turns = this): void {
    this.timeline = timeline;
    this.served = servedTimeline(timeline);
    this.#previous = timeline.prevRecordLsn === INVALID_LSN
      ? CHECKPOINT_LSN
      : timeline.prevRecordLsn;
    const { served, reader } = this;
    this.#ingest = new WalIngest({ served, reader, now, pause });
    this.#wal = new WalWriter(timeline.lastRecordLsn, {
      version: VERSION,
      systemId: SYSTEM_ID,
      segmentSize: SEGMENT_SIZE,
    });
  }

  /** Builds the WAL of records, ingests it and returns its end. */
  async ingest(...specs: RecordSpec[]): Promise<Lsn> {
    const from = this.#wal.end - this.#wal.start;
    for (const spec of specs) {
      const record = buildRecord({ ...spec, xid: spec.xid ?? 700, previous: this.#previous });
      this.#previous = this.#wal.append(record);
    }
    await this.#ingest.feed(this.#wal.bytes().slice(from));
    return this.timeline.lastRecordLsn;
  }

  /** Blocks of a fork now, -1 if there is none. */
  blocks(tag: RelTag): number {
    const object = this.manager.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
    return this.served.relations.blocksAt(object, this.timeline.lastRecordLsn);
  }

  /** What is stored of a block now. */
  collect(tag: RelTag, block: number): Reconstruction {
    const found = new Reconstruction();
    const object = this.manager.interner.relation(tag.spc, tag.db, tag.rel, tag.fork);
    this.timeline.collect(object, block, this.timeline.lastRecordLsn, found);
    return found;
  }

  /** What is stored of an SLRU page now. */
  collectSlru(kind: number, page: number): Reconstruction {
    const found = new Reconstruction();
    const object = this.manager.interner.slru(kind, Math.floor(page / 32));
    this.timeline.collect(object, page % 32, this.timeline.lastRecordLsn, found);
    return found;
  }

  /** WAL receivers of pageserver 5, which nothing has told of any safekeeper yet. */
  receivers(brokerIsThere = true): WalReceivers {
    const { manager, reader, now, pause } = this;
    return new WalReceivers({
      manager,
      reader,
      pageserverId: 5,
      now,
      unixNow: () => 0,
      pause,
      brokerIsThere: () => brokerIsThere,
    });
  }

  async remove(): Promise<void> {
    await this.manager.shutdown();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/** Runs `body` with a cluster and removes it. */
export async function withCluster(body: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.create();
  try {
    await body(cluster);
  } finally {
    await cluster.remove();
  }
}

/** u32 values, little endian. */
export function u32s(...values: number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function page(fill: number): Uint8Array {
  return new Uint8Array(8192).fill(fill);
}

/** The tar of the cluster's data directory, with more files by their paths. */
export async function* clusterTar(
  more: Readonly<Record<string, Uint8Array>> = {},
): AsyncGenerator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((chunk) => {
    chunks.push(chunk.slice());
    return Promise.resolve();
  });
  await tar.directory("./base");
  await tar.directory("./base/1");
  await tar.file("./base/1/PG_VERSION", new TextEncoder().encode("17\n"));
  await tar.file("./base/5/16384", Uint8Array.from([...page(1), ...page(2), ...page(3)]));
  await tar.file("./base/5/16384_vm", page(0));
  await tar.file("./base/5/16385", page(4));
  await tar.file("./base/5/pg_filenode.map", new Uint8Array(524).fill(9));
  await tar.file("./base/5/pg_internal.init", page(5));
  await tar.file("./global/pg_filenode.map", new Uint8Array(524).fill(8));
  for (const directory of ["pg_xact", "pg_multixact/members", "pg_multixact/offsets"]) {
    await tar.file(`./${directory}/0000`, page(0));
  }
  for (const [path, content] of Object.entries(more)) await tar.file(`./${path}`, content);
  const control = shutdownControlFile({
    version: VERSION,
    systemId: SYSTEM_ID,
    start: CHECKPOINT_LSN,
    checkPoint: { ...emptyCheckPoint(), nextXid: 700, nextOid: 16400 },
    parameters: defaultWalParameters(),
    walSegmentSize: SEGMENT_SIZE,
    dataChecksumVersion: 0,
    nonce: new Uint8Array(32),
  });
  await tar.file("./global/pg_control", encodeControlFile(control));
  await tar.finish();
  yield* chunks;
}
