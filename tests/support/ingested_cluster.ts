/**
 * A stock cluster and its copy in a pageserver of this process: imported when the cluster is new,
 * then its WAL is ingested, compared with the stopped cluster's files, and given back as a full
 * base backup on which stock PostgreSQL starts.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { decodeControlFile } from "../../libs/postgres/control_file.ts";
import { endOfCheckpointRecord } from "../../libs/postgres/wal/start_checkpoint.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { Basebackup } from "../../pageserver/basebackup/basebackup.ts";
import { Compactor } from "../../pageserver/compaction/compactor.ts";
import { importCluster } from "../../pageserver/import/import_cluster.ts";
import { WalIngest } from "../../pageserver/ingest/wal_ingest.ts";
import { PageReader } from "../../pageserver/page_service/page_reader.ts";
import { TenantManager } from "../../pageserver/repository/tenant_manager.ts";
import { type ServedTimeline, servedTimeline } from "../../pageserver/served_timeline.ts";
import { readWal, replaceData, tarOf } from "../ingest_oracle/cluster_files.ts";
import { compareWithCluster } from "../ingest_oracle/compare.ts";
import type { StockPostgres } from "../redo_judge/stock_postgres.ts";

const FEED_BYTES = 128 * 1024;
const CACHE_BYTES = 8 * 1024 * 1024;

/** See the head of the file. Ends with the object; the cluster is the caller's. */
export class IngestedCluster implements AsyncDisposable {
  readonly served: ServedTimeline;
  readonly #server: StockPostgres;
  readonly #manager: TenantManager;
  readonly #directory: string;
  readonly #reader = new PageReader(CACHE_BYTES);

  private constructor(
    server: StockPostgres,
    manager: TenantManager,
    directory: string,
    served: ServedTimeline,
  ) {
    this.#server = server;
    this.#manager = manager;
    this.#directory = directory;
    this.served = served;
  }

  /** Imports the stopped cluster. */
  static async import(server: StockPostgres, major: number): Promise<IngestedCluster> {
    const directory = Deno.makeTempDirSync({ prefix: "ingested-cluster-" });
    const now = () => performance.now();
    const manager = TenantManager.open(directory, { now, pause: () => setImmediate() });
    const tenant = await manager.attach(newTenantId(), 1);
    const tar = tarOf(server.dataDir);
    const timeline = await importCluster(tenant, manager.interner, newTimelineId(), major, tar);
    return new IngestedCluster(server, manager, directory, servedTimeline(timeline));
  }

  /** Ingests all WAL of the stopped cluster; returns its end. */
  async ingest(): Promise<Lsn> {
    const { dataDir } = this.#server;
    const { served } = this;
    const { checkPointLsn, walSegmentSize } = decodeControlFile(
      Deno.readFileSync(join(dataDir, "global/pg_control")),
    );
    const end = endOfCheckpointRecord(checkPointLsn, walSegmentSize);
    const start = served.timeline.lastRecordLsn;
    const ingest = new WalIngest({
      served,
      reader: this.#reader,
      now: () => performance.now(),
      pause: () => setImmediate(),
    });
    for (const part of readWal(dataDir, start, end, walSegmentSize, FEED_BYTES)) {
      await ingest.feed(part);
    }
    assert.equal(served.timeline.lastRecordLsn, end);
    return end;
  }

  /** Has images made of all pages that are read from records; returns of how many. */
  async makeImages(): Promise<number> {
    const { timeline } = this.served;
    await timeline.flush();
    const compactor = new Compactor({ manager: this.#manager, now: () => performance.now() });
    const { images } = await compactor.compact(timeline, true);
    assert.equal(images.firstFailure, undefined);
    return images.pages;
  }

  /** What is not as in the stopped cluster's files, whose WAL was ingested. */
  differences(): string[] {
    const lsn = this.served.timeline.lastRecordLsn;
    return compareWithCluster(this.served, this.#reader, lsn, this.#server.dataDir, 0).differences;
  }

  /** Puts a full base backup as of `lsn` in place of the stopped cluster's files. */
  async restore(lsn: Lsn = this.served.timeline.lastRecordLsn): Promise<void> {
    const tarPath = join(this.#server.directory, "backup.tar");
    using file = Deno.openSync(tarPath, { write: true, create: true, truncate: true });
    const options = { served: this.served, reader: this.#reader, lsn, kind: "full" } as const;
    await new Basebackup(options).write(async (chunk) => {
      for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
    });
    replaceData(this.#server, tarPath);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#manager.shutdown();
    Deno.removeSync(this.#directory, { recursive: true });
  }
}
