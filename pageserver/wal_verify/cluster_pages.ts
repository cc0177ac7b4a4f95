/**
 * Pages of a stopped cluster's files, by the key that redo knows them by: relation forks and the
 * SLRUs. What is not there (yet) is no error.
 */
import { join } from "node:path";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { relationSegmentPath } from "../../libs/postgres/relation.ts";
import { slruSegmentPath } from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { PageTarget, RedoKey } from "../walredo/types.ts";

/** Files that are kept open. */
const OPEN_FILES_MAX = 64;

/** Path of the file with the page, and the page's number in it. */
function fileOf(key: RedoKey, version: PgVersion): { path: string; block: number } {
  if (key.kind === "slru") {
    return { path: slruSegmentPath(key.slruKind, key.segno), block: key.block };
  }
  const segment = Math.floor(key.block / RELATION_SEGMENT_PAGES);
  return {
    path: relationSegmentPath(key, segment, version),
    block: key.block % RELATION_SEGMENT_PAGES,
  };
}

/** The files of one data directory. */
export class ClusterPages {
  readonly #directory: string;
  readonly #version: PgVersion;
  /** By path, least recently used first; undefined for a file that does not exist. */
  readonly #open = new Map<string, Deno.FsFile | undefined>();

  constructor(directory: string, version: PgVersion) {
    this.#directory = directory;
    this.#version = version;
  }

  /** Reads a page; false if the file or the page is not there. */
  read(key: RedoKey, page: PageTarget): boolean {
    const { path, block } = fileOf(key, this.#version);
    const file = this.#file(path);
    if (file === undefined) return false;
    file.seekSync(block * PAGE_SIZE, Deno.SeekMode.Start);
    const target = page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
    for (let filled = 0; filled < PAGE_SIZE;) {
      const count = file.readSync(target.subarray(filled));
      if (count === null) return false;
      filled += count;
    }
    return true;
  }

  [Symbol.dispose](): void {
    for (const file of this.#open.values()) file?.close();
    this.#open.clear();
  }

  #file(path: string): Deno.FsFile | undefined {
    if (this.#open.has(path)) {
      const file = this.#open.get(path);
      this.#open.delete(path);
      this.#open.set(path, file);
      return file;
    }
    if (this.#open.size >= OPEN_FILES_MAX) {
      const [oldest, file] = this.#open.entries().next().value!;
      file?.close();
      this.#open.delete(oldest);
    }
    const file = ifThere(() => Deno.openSync(join(this.#directory, path)));
    this.#open.set(path, file);
    return file;
  }
}
