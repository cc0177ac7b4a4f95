/**
 * Sorting a large array without holding up the event loop: runs are sorted natively, then merged
 * pairwise, with a pause every SLICE elements (about a millisecond).
 */

/** Elements between pauses. */
const SLICE = 8192;
/** A run that is sorted in one go with a comparison function, which is dearer. */
const COMPARED_RUN = 1024;

/**
 * Returns `values` sorted ascending, or by `compare`. The result is `values` itself or a new array
 * of the same length; `values` is scratch afterwards.
 */
export async function sortInSlices(
  values: Float64Array,
  pause: () => Promise<void>,
  compare?: (a: number, b: number) => number,
): Promise<Float64Array> {
  const run = compare === undefined ? SLICE : COMPARED_RUN;
  for (let at = 0; at < values.length; at += run) {
    values.subarray(at, at + run).sort(compare);
    if (values.length > run) await pause();
  }
  let from: Float64Array = values;
  let to: Float64Array = new Float64Array(values.length > run ? values.length : 0);
  const inOrder = compare === undefined
    ? (a: number, b: number) => a <= b
    : (a: number, b: number) => compare(a, b) <= 0;
  for (let width = run; width < values.length; width *= 2) {
    for (let start = 0; start < values.length; start += 2 * width) {
      await mergePair(from, to, start, width, inOrder, run, pause);
    }
    [from, to] = [to, from];
  }
  return from;
}

/** Merges from[start, start + width) and the run after it into `to` at `start`. */
async function mergePair(
  from: Float64Array,
  to: Float64Array,
  start: number,
  width: number,
  inOrder: (a: number, b: number) => boolean,
  slice: number,
  pause: () => Promise<void>,
): Promise<void> {
  const middle = Math.min(start + width, from.length);
  const end = Math.min(start + 2 * width, from.length);
  let left = start;
  let right = middle;
  for (let at = start; at < end;) {
    const stop = Math.min(end, at + slice);
    for (; at < stop; at++) {
      const takeLeft = left < middle && (right >= end || inOrder(from[left]!, from[right]!));
      to[at] = takeLeft ? from[left++]! : from[right++]!;
    }
    await pause();
  }
}
