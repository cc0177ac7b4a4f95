/**
 * Turning a frozen layer into a layer file (layer_format.ts): sort the keys, put index blocks,
 * directory and trailer behind the blobs, sync, rename, sync the directory.
 *
 * All of it runs beside page reads on the same event loop, so it pauses about every millisecond.
 * The memory layer stays readable until the caller swaps it for the finished one.
 */
import { assert } from "../../libs/utils/assert.ts";
import { writeAll } from "../../libs/utils/durable.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { AppendFile } from "./append_file.ts";
import { syncDirectory } from "./durable_async.ts";
import { finishLayerFile, IndexWriter } from "./index_writer.ts";
import { type Key, makeKey } from "./key.ts";
import type { KeyInterner, ObjectId } from "./key_interner.ts";
import {
  type LayerDescription,
  layerFileName,
  type LayerKind,
  type LayerOwner,
} from "./layer_format.ts";
import { type MemoryIndex, NO_ENTRY } from "./memory_index.ts";
import { sortInSlices } from "./sliced_sort.ts";

/** Entries between pauses. */
const SLICE = 2048;
const TWO_32 = 4294967296;

/** What to write, and where. */
interface LayerJob {
  readonly kind: LayerKind;
  readonly owner: LayerOwner;
  readonly generation: number;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  readonly file: AppendFile;
  readonly index: MemoryIndex;
  readonly interner: KeyInterner;
  readonly pause: () => Promise<void>;
}

/** The keys of an index in order: objects by their fields, keys as rank of the object and block. */
interface SortedKeys {
  readonly objects: Float64Array;
  /** rank * 2^32 + block, ascending. */
  readonly keys: Float64Array;
}

async function sortKeys(job: LayerJob): Promise<SortedKeys> {
  const { index, interner, pause } = job;
  const ranks = new Map<number, number>();
  for (const table of index.keyTables()) {
    for (const object of table.objects) if (object !== 0) ranks.set(object - 1, 0);
    await pause();
  }
  const objects = await sortInSlices(
    Float64Array.from(ranks.keys()),
    pause,
    (a, b) => interner.compare(a as ObjectId, b as ObjectId),
  );
  for (let rank = 0; rank < objects.length; rank++) ranks.set(objects[rank]!, rank);
  const keys = new Float64Array(index.keyCount);
  let count = 0;
  for (const table of index.keyTables()) {
    for (let slot = 0; slot < table.objects.length; slot++) {
      const object = table.objects[slot]!;
      if (object === 0) continue;
      keys[count++] = ranks.get(object - 1)! * TWO_32 + table.blocks[slot]!;
    }
    await pause();
  }
  assert(count === keys.length, "every key of the index is in one table");
  return { objects, keys: await sortInSlices(keys, pause) };
}

/** Adds the entries of all keys, oldest first within a key. */
async function writeEntries(job: LayerJob, sorted: SortedKeys, writer: IndexWriter): Promise<void> {
  const { index, interner, pause } = job;
  const key = makeKey(0, 0, 0, 0, 0, 0);
  const chain: number[] = [];
  let work = 0;
  let rankBefore = -1;
  for (const composite of sorted.keys) {
    const rank = Math.floor(composite / TWO_32);
    const object = sorted.objects[rank]! as ObjectId;
    if (rank !== rankBefore) interner.fields(object, key);
    rankBefore = rank;
    key.f6 = composite % TWO_32;
    chain.length = 0;
    for (let e = index.newest(object, key.f6); e !== NO_ENTRY; e = index.previous(e)) {
      chain.push(e);
      if (++work % SLICE === 0) await pause();
    }
    for (let i = chain.length - 1; i >= 0; i--) {
      const entry = chain[i]!;
      // An image layer's LSN is known only when it is finished.
      const lsn = job.kind === "image" ? job.lsnEnd : index.lsn(entry);
      writer.add(rank, key, lsn, index.word(entry));
      if (++work % SLICE === 0) await pause();
    }
  }
}

function keyOf(sorted: SortedKeys, composite: number, interner: KeyInterner): Key {
  const key = makeKey(0, 0, 0, 0, 0, 0);
  interner.fields(sorted.objects[Math.floor(composite / TWO_32)]! as ObjectId, key);
  key.f6 = composite % TWO_32;
  return key;
}

/**
 * Finishes and syncs the layer under the name that the file has. On failure the file stays behind;
 * unless it is SyncFailed, the same job may be done again.
 */
export async function writeLayerFile(job: LayerJob): Promise<LayerDescription> {
  assert(job.index.entryCount > 0, "an empty layer is not written");
  const sorted = await sortKeys(job);
  const blobBytes = job.file.seal();
  const out = job.file.writer;
  const writer = new IndexWriter((blocks) => writeAll(out, blocks));
  await writeEntries(job, sorted, writer);
  const description = {
    kind: job.kind,
    inKeyOrder: false,
    first: keyOf(sorted, sorted.keys[0]!, job.interner),
    last: keyOf(sorted, sorted.keys[sorted.keys.length - 1]!, job.interner),
    lsnStart: job.lsnStart,
    lsnEnd: job.lsnEnd,
    generation: job.generation,
  };
  return await finishLayerFile(out, writer, description, blobBytes, job.owner);
}

/**
 * The same, and gives the layer its name in `directory`, which is durable when this resolves. The
 * caller lists it in index_part.
 */
export async function writeLayer(job: LayerJob, directory: string): Promise<LayerDescription> {
  const description = await writeLayerFile(job);
  const path = `${directory}/${layerFileName(description)}`;
  // In one step with the path, for a reader that has to open the file again.
  Deno.renameSync(job.file.file.path, path);
  job.file.file.path = path;
  await syncDirectory(directory);
  return description;
}
