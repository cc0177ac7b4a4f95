/**
 * The final pages of a replay against the files of a server that ran, or recovered, the same WAL
 * and was stopped. What PostgreSQL masks is masked; its mask functions go by resource manager,
 * here the page itself says which it is.
 */
import { FORK_FSM, FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { pageFlags, pageLsn } from "../../libs/postgres/page.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { SLRU_DIRECTORIES } from "../../libs/postgres/slru.ts";
import { ClusterPages } from "../../pageserver/wal_verify/cluster_pages.ts";
import { compareBytes } from "../../pageserver/walredo/consistency.ts";
import { maskPage } from "../../pageserver/walredo/masking.ts";
import { describeKey } from "../../pageserver/walredo/redo_error.ts";
import type { PageTarget, RedoKey } from "../../pageserver/walredo/types.ts";
import {
  clearSpgistCache,
  GIST_BUILD_LSN,
  gistSplitState,
  resourceManagerOf,
} from "../support/page_kinds.ts";

const PD_ALL_VISIBLE = 4;

/** The files of a server that was shut down in an orderly way. */
interface StoppedCluster {
  readonly dataDir: string;
  readonly version: PgVersion;
  /** With page checksums hints are logged, and then VISIBLE sets the heap page's LSN. */
  readonly checksums: boolean;
}

/** A page after replay. */
interface ReplayedPage {
  readonly key: RedoKey;
  readonly target: PageTarget;
  /** Not ours to be judged: see HeldPage. */
  readonly adopted?: boolean;
  readonly bitsLost?: boolean;
}

/** Pages compared, by kind, and descriptions of the differences. */
export interface Comparison {
  readonly compared: Map<string, number>;
  readonly differences: string[];
}

/** Compares pages with those of the files. */
export function comparePages(
  cluster: StoppedCluster,
  pages: Iterable<ReplayedPage>,
): Comparison {
  const compared = new Map<string, number>();
  const differences: string[] = [];
  const bytes = new Uint8Array(2 * PAGE_SIZE);
  const view = new DataView(bytes.buffer);
  const ours: PageTarget = { bytes, view, offset: 0 };
  const theirs: PageTarget = { bytes, view, offset: PAGE_SIZE };
  using files = new ClusterPages(cluster.dataDir, cluster.version);
  for (const { key, target, adopted, bitsLost } of pages) {
    if (adopted || bitsLost) continue;
    if (key.kind === "relation" && key.fork === FORK_FSM) continue; // not in the WAL
    if (!files.read(key, theirs)) continue;
    // A sequence is logged ahead of what is on its page: only the images say what it should be.
    if (key.kind === "relation" && resourceManagerOf(theirs) === Rmgr.SEQ) continue;
    bytes.set(target.bytes.subarray(target.offset, target.offset + PAGE_SIZE), 0);
    const kind = key.kind === "slru"
      ? SLRU_DIRECTORIES[key.slruKind]!
      : key.fork === FORK_VM
      ? "visibility map"
      : "relation";
    compared.set(kind, (compared.get(kind) ?? 0) + 1);
    if (key.kind === "relation" && view.getUint16(14, true) !== 0) {
      const visible = (pageFlags(view, 0) ^ pageFlags(view, PAGE_SIZE)) & PD_ALL_VISIBLE;
      if (visible !== 0) differences.push(`${describeKey(key)}: PD_ALL_VISIBLE`);
      const asBuilt = pageLsn(view, PAGE_SIZE) === GIST_BUILD_LSN;
      if (!cluster.checksums && !asBuilt && pageLsn(view, 0) !== pageLsn(view, PAGE_SIZE)) {
        differences.push(`${describeKey(key)}: pd_lsn`);
      }
      const rmgr = resourceManagerOf(theirs);
      if (rmgr === undefined) continue;
      if (rmgr === Rmgr.GIST && gistSplitState(ours) !== gistSplitState(theirs)) {
        differences.push(`${describeKey(key)}: NSN or follow-right flag`);
      }
      if (rmgr === Rmgr.SPGIST && key.block === 0) {
        for (const page of [ours, theirs]) clearSpgistCache(page);
      }
      maskPage(ours, rmgr, key.fork, key.block);
      maskPage(theirs, rmgr, key.fork, key.block);
    }
    const found = compareBytes(bytes.subarray(0, PAGE_SIZE), bytes.subarray(PAGE_SIZE));
    if (found !== undefined) {
      differences.push(`${describeKey(key)}: ${found.bytes} bytes from ${found.offset}`);
    }
  }
  return { compared, differences };
}
