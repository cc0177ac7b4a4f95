/**
 * The last comparison of a verification: pages as replay leaves them against the files of the
 * server that wrote the WAL, after it was stopped. It judges what no image in the WAL says: states
 * and times of transactions, multixacts, and visibility maps.
 *
 * A page that the server has not got any more (a truncated SLRU, a dropped relation) is passed
 * over.
 */
import { FORK_VM, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import { SLRU_DIRECTORIES } from "../../libs/postgres/slru.ts";
import { compareBytes, type ConsistencyChecker } from "../walredo/consistency.ts";
import { describeKey } from "../walredo/redo_error.ts";
import type { PageTarget } from "../walredo/types.ts";
import type { ClusterPages } from "./cluster_pages.ts";

/** What came out. */
export interface AfterComparison {
  /** Pages compared, by what they are: "pg_xact", "visibility map". */
  readonly compared: ReadonlyMap<string, number>;
  /** One line for each page that differs. */
  readonly differences: readonly string[];
}

/** Compares all such pages that the checker has touched. */
export function compareAfter(checker: ConsistencyChecker, files: ClusterPages): AfterComparison {
  const compared = new Map<string, number>();
  const differences: string[] = [];
  const bytes = new Uint8Array(PAGE_SIZE);
  const theirs: PageTarget = { bytes, view: new DataView(bytes.buffer), offset: 0 };
  for (const { key, target, bitsLost } of checker.pages()) {
    const isMap = key.kind === "relation" && key.fork === FORK_VM && !bitsLost;
    if ((key.kind !== "slru" && !isMap) || !files.read(key, theirs)) continue;
    const kind = isMap ? "visibility map" : SLRU_DIRECTORIES[key.slruKind]!;
    compared.set(kind, (compared.get(kind) ?? 0) + 1);
    // The header of a map page has an LSN that need not be the same; SLRU pages have no header.
    const from = isMap ? PAGE_HEADER_SIZE : 0;
    const ours = target.bytes.subarray(target.offset + from, target.offset + PAGE_SIZE);
    const found = compareBytes(ours, bytes.subarray(from));
    if (found === undefined) continue;
    differences.push(`${describeKey(key)}: ${found.bytes} bytes from ${from + found.offset}`);
  }
  return { compared, differences };
}
