/**
 * Which delta layers are rewritten into one run in key order.
 *
 * Pure. A run is the delta layers of the same LSNs: one layer as it was flushed, or the layers that
 * a rewrite has made of several, each with other keys. A read of a key looks into one layer of each
 * run. Runs that follow each other become one, and what is written lies in the order of keys.
 *
 *   stacked     compaction_threshold or more runs, none of which has more bytes than all newer ones
 *               together: so a byte is written again only when what it lies with has doubled.
 *               Runs below SMALL_BYTES count as equal. Or fewer of them, if more would be too much
 *   scattered   runs as they were flushed, of which reads that go through relations in order would
 *               often have to begin elsewhere: once for every READ_BYTES that are to be rewritten
 */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { LayerDescription } from "../repository/layer_format.ts";

const MIB = 1024 * 1024;
/** Runs that are so much larger than all newer ones are taken with them. */
const SMALL_BYTES = 16 * MIB;
/** A rewrite takes no more: it needs as much space, until the layers that it replaces are gone. */
const GROUP_BYTES_MAX = 3072 * MIB;
/**
 * Of runs in order of arrival it takes no more, but for one alone: they are read once for every few
 * MiB that are written (value_batch.ts).
 */
const ARRIVAL_BYTES_MAX = 512 * MIB;
/** Files that a rewrite reads at once (value_batch.ts: their numbers take 8 bits). */
const SOURCES_MAX = 255;
/** One scattered read for so many bytes is worth it. */
const READ_BYTES = 8192;
/** Fewer scattered reads are not worth a look. */
const READS_MIN = 1000;

/** Delta layers of the same LSNs, with different keys. */
interface Run {
  readonly lsnEnd: Lsn;
  readonly inKeyOrder: boolean;
  readonly layers: LayerDescription[];
  bytes: number;
}

/** The runs of a timeline's layers, which come by descending LSN end, as the runs do. */
function runsOf(layers: readonly LayerDescription[]): Run[] {
  const runs: Run[] = [];
  for (const layer of layers) {
    const { kind, lsnEnd, inKeyOrder, sizeBytes } = layer;
    if (kind === "image") continue;
    const last = runs.at(-1);
    if (last?.lsnEnd === lsnEnd) {
      last.layers.push(layer);
      last.bytes += sizeBytes;
    } else runs.push({ lsnEnd, inKeyOrder, layers: [layer], bytes: sizeBytes });
  }
  return runs;
}

const sumOf = (runs: readonly Run[], of: (run: Run) => number) =>
  runs.reduce((sum, run) => sum + of(run), 0);

const arrivalBytes = (runs: readonly Run[]) =>
  sumOf(runs, ({ inKeyOrder, bytes }) => inKeyOrder ? 0 : bytes);

/** Whether `runs` can be read at once. */
function isTooMuch(runs: readonly Run[]): boolean {
  return sumOf(runs, ({ bytes }) => bytes) > GROUP_BYTES_MAX ||
    sumOf(runs, ({ layers }) => layers.length) > SOURCES_MAX;
}

/** The runs from `start` on, newest first, that are of a size; and whether there are more. */
function stackFrom(runs: readonly Run[], start: number): { stack: Run[]; isCut: boolean } {
  const stack = [runs[start]!];
  let bytes = runs[start]!.bytes;
  for (const run of runs.slice(start + 1)) {
    if (run.bytes > bytes + SMALL_BYTES) break;
    if (isTooMuch([...stack, run])) return { stack, isCut: true };
    stack.push(run);
    bytes += run.bytes;
  }
  return { stack, isCut: false };
}

/** The newest of the rows of runs in order of arrival, as many as may be taken at once. */
function arrivalRow(runs: readonly Run[], isWanted: (run: Run) => boolean): Run[] {
  const row: Run[] = [];
  for (const run of runs) {
    if (run.inKeyOrder || !isWanted(run)) {
      if (row.length > 0) break;
    } else if (row.length > 0 && (arrivalBytes([...row, run]) > ARRIVAL_BYTES_MAX)) break;
    else row.push(run);
  }
  return isTooMuch(row) ? row.slice(0, 1) : row;
}

function stackedRuns(runs: readonly Run[], compactionThreshold: number): Run[] {
  const countMin = Math.max(2, compactionThreshold);
  for (let start = 0; start < runs.length; start++) {
    const { stack, isCut } = stackFrom(runs, start);
    if (stack.length < countMin && !(isCut && stack.length > 1)) continue;
    return arrivalBytes(stack) > ARRIVAL_BYTES_MAX ? arrivalRow(stack, () => true) : stack;
  }
  return [];
}

function scatteredRuns(
  runs: readonly Run[],
  readsOf: (layer: LayerDescription) => number,
): Run[] {
  const reads = ({ layers }: Run) => layers.reduce((sum, layer) => sum + readsOf(layer), 0);
  const row = arrivalRow(runs, (run) => reads(run) * READ_BYTES >= run.bytes);
  return sumOf(row, reads) >= READS_MIN ? row : [];
}

function layersOf(runs: readonly Run[]): LayerDescription[] {
  return runs.flatMap(({ layers }) => layers).toReversed();
}

/**
 * The layers that are to become one run because there are many, oldest first; none if it is not
 * time. `layers` come by descending LSN end.
 */
export function stackedLayers(
  layers: readonly LayerDescription[],
  compactionThreshold: number,
): LayerDescription[] {
  return layersOf(stackedRuns(runsOf(layers), compactionThreshold));
}

/**
 * The same for layers of which `readsOf` says how many reads they cost that lie far from each
 * other.
 */
export function scatteredLayers(
  layers: readonly LayerDescription[],
  readsOf: (layer: LayerDescription) => number,
): LayerDescription[] {
  return layersOf(scatteredRuns(runsOf(layers), readsOf));
}
