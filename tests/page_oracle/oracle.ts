/**
 * Compares every page that an endpoint's PostgreSQL has on disk with the page that the pageserver
 * serves for it, at the LSN where PostgreSQL stands: a page that differs is a wrong answer.
 *
 * Left out: free space maps (not in WAL), temporary relations and the main forks of unlogged ones,
 * pages that PostgreSQL has not looked at yet (their files hold zeros until then). What is masked
 * says ingest_oracle/compare.ts. Pages that only PostgreSQL has must be all zeros, but for the init
 * fork of a bloom index, which from 16 on is not logged (bloom/blinsert.c, blbuildempty: generic
 * WAL is written for logged relations only).
 */
import { join } from "node:path";
import { timelineOfBranch } from "../../cli/control_plane/environment.ts";
import { FORK_FSM, FORK_INIT, FORK_VM, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import { formatRel, type RelTag } from "../../libs/postgres/relation.ts";
import { SlruKind, slruSegmentPath } from "../../libs/postgres/slru.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { TestNeon } from "../harness.ts";
import { isBloomPage } from "../support/page_kinds.ts";
import { type LocalFork, readForks, readSlru } from "../ingest_oracle/cluster_files.ts";
import { pageDifference, surplusBits } from "../ingest_oracle/compare.ts";
import { blockOf, type PageOrigin, pageOrigins } from "./arena_pages.ts";
import { PageServiceClient, relationsAt } from "./page_service.ts";

/** Relation files of initdb, and so of template0, are numbered below (FirstNormalObjectId). */
const OID_NORMAL_MIN = 16384;

/** What to compare. */
interface OracleOptions {
  readonly endpoint: string;
  readonly branch: string;
  /** Behind the last record; PostgreSQL is idle, and checkpointed. */
  readonly lsn: Lsn;
  /**
   * Databases that were copied from template0 through WAL: maps of what was copied may lack bits
   * (see compare.ts).
   */
  readonly copiedByWal: readonly number[];
  /** The cluster has data checksums (see compare.ts). */
  readonly checksums?: boolean;
  /** The arena of an endpoint that has been stopped, which it had in its directory before. */
  readonly arena?: string;
  /** Called with each page as PostgreSQL has it, to spoil it. */
  readonly spoil?: (tag: RelTag, page: Uint8Array, block: number) => void;
}

/** What was compared, and every difference found. */
export class PageOracle {
  /** Pages by where PostgreSQL has them from. */
  readonly pages: Record<PageOrigin, number> = { absent: 0, fetched: 0, written: 0 };
  forks = 0;
  slruPages = 0;
  readonly differences: string[] = [];
  readonly #options: OracleOptions;
  readonly #origin: (tag: RelTag, block: number) => PageOrigin;
  readonly #client: PageServiceClient;

  private constructor(options: OracleOptions, arena: string, client: PageServiceClient) {
    this.#options = options;
    this.#origin = pageOrigins(arena);
    this.#client = client;
  }

  /** Compares everything. */
  static async compare(neon: TestNeon, options: OracleOptions): Promise<PageOracle> {
    const env = neon.local.environment();
    const tenant = neon.tenant.tenantId;
    const timeline = timelineOfBranch(env, tenant, options.branch);
    const source = { address: env.config.pageservers[0]!.listen_pg_addr, tenant, timeline };
    const directory = join(neon.local.directory, "compute/endpoints", options.endpoint);
    const client = await PageServiceClient.connect(source, options.lsn);
    try {
      const arena = options.arena ?? join(directory, "arena");
      const oracle = new PageOracle(options, arena, client);
      const map = await relationsAt(source, options.lsn);
      await oracle.#compareRelations(readForks(join(directory, "pgdata")), map.forks);
      await oracle.#compareSlrus(join(directory, "pgdata"));
      return oracle;
    } finally {
      client.close();
    }
  }

  async #compareRelations(local: Map<string, LocalFork>, ours: readonly RelTag[]): Promise<void> {
    const relation = ({ spc, db, rel }: RelTag) => `${spc}/${db}/${rel}`;
    const forks = [...local.values()].map(({ tag }) => tag);
    const unlogged = new Set(forks.filter(({ fork }) => fork === FORK_INIT).map(relation));
    const isLogged = (tag: RelTag) =>
      tag.fork !== FORK_FSM && (tag.fork === FORK_INIT || !unlogged.has(relation(tag)));
    for (const tag of ours) {
      if (!isLogged(tag) || local.has(`${relation(tag)}/${tag.fork}`)) continue;
      this.differences.push(`${formatRel(tag)}: PostgreSQL does not have it`);
    }
    for (const fork of local.values()) {
      if (isLogged(fork.tag)) await this.#compareFork(fork);
    }
  }

  async #compareFork({ tag, bytes }: LocalFork): Promise<void> {
    const name = formatRel(tag);
    const localBlocks = bytes.length / PAGE_SIZE;
    const exists = await this.#client.exists(tag);
    if (!exists && tag.fork !== FORK_VM) {
      this.differences.push(`${name}: the pageserver does not have it`);
    }
    const blocks = exists ? await this.#client.blocks(tag) : 0;
    if (blocks > localBlocks) {
      this.differences.push(`${name}: ${blocks} blocks, PostgreSQL has ${localBlocks}`);
    }
    const headerBytes = tag.fork === FORK_VM ? PAGE_HEADER_SIZE : 0;
    const beyond = bytes.subarray(blocks * PAGE_SIZE);
    const hasData = beyond.some((byte, i) => byte !== 0 && i % PAGE_SIZE >= headerBytes);
    if (hasData && !(tag.fork === FORK_INIT && isBloomPage(beyond))) {
      this.differences.push(`${name}: ${blocks} blocks, and PostgreSQL has data beyond`);
    }
    this.forks++;
    await this.#client.pages(tag, Math.min(blocks, localBlocks), (block, page) => {
      const origin = this.#origin(tag, block);
      this.pages[origin]++;
      if (origin === "absent") return;
      const why = this.#difference(tag, block, page, blockOf(bytes, block));
      if (why !== undefined) this.differences.push(`${name} block ${block} (${origin}): ${why}`);
    });
  }

  #difference(
    tag: RelTag,
    block: number,
    page: Uint8Array | string,
    local: Uint8Array<ArrayBuffer>,
  ): string | undefined {
    if (typeof page === "string") return page;
    this.#options.spoil?.(tag, local, block);
    const wasCopied = this.#options.copiedByWal.includes(tag.db) && tag.rel < OID_NORMAL_MIN;
    if (tag.fork === FORK_VM && wasCopied) return surplusBits(page, local);
    try {
      return pageDifference(new Uint8Array(page), local, tag, block, this.#options.checksums);
    } catch (thrown) {
      return messageOf(thrown); // a page that cannot be masked
    }
  }

  async #compareSlrus(pgdata: string): Promise<void> {
    for (const kind of Object.values(SlruKind)) {
      const directory = slruSegmentPath(kind, 0).replace(/\/[^/]*$/, "");
      for (const [segment, local] of readSlru(pgdata, directory)) {
        const ours = await this.#client.slruSegment(kind, segment);
        const name = `${directory} segment ${segment}`;
        for (let at = 0; at < Math.max(local.length, ours.length); at += PAGE_SIZE) {
          this.slruPages++;
          const same = ours.subarray(at, at + PAGE_SIZE)
            .every((byte, i) => byte === (local[at + i] ?? 0));
          const isBeyond = at >= ours.length &&
            local.subarray(at, at + PAGE_SIZE).every((byte) => byte === 0);
          if (!same || (at >= ours.length && !isBeyond)) {
            this.differences.push(`${name} block ${at / PAGE_SIZE} differs`);
          }
        }
      }
    }
  }
}
