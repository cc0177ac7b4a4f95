/** What tests of compaction share: passes without a worker, over pages that are texts. */
import { isWholeOnDisk } from "../repository/timeline_snapshot.ts";
import { bytesOf, pause, textOf } from "../repository/repository_fixture.ts";
import type { Reconstruction } from "../repository/reconstruction.ts";
import { Resources } from "../repository/resources.ts";
import type { Timeline } from "../repository/timeline.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { INVALID_LSN } from "../../libs/utils/lsn.ts";
import { rewriteDeltas } from "./delta_pass.ts";
import { type ImagePassOrder, type ImagePassResult, makeImages } from "./image_pass.ts";

let passes = 0;

/** What was collected of a page of text: its image and its records, joined by spaces. */
export function joinedText(collected: Reconstruction): string {
  const { bytes, hasImage, imageLength, recordCount, recordOffset, recordLength } = collected;
  const parts = collected.continues ? ["..."] : [];
  if (hasImage) parts.push(textOf(bytes.subarray(0, imageLength))!);
  for (let i = 0; i < recordCount; i++) {
    const offset = recordOffset[i]!;
    parts.push(textOf(bytes.subarray(offset, offset + recordLength[i]!))!);
  }
  return parts.join(" ");
}

/**
 * Makes images of a timeline whose redo joins texts, in this isolate; undefined if its ancestors
 * are not on disk. `onWritten` is called before a written layer is taken over.
 */
export async function makeTextImages(
  timeline: Timeline,
  order: Partial<ImagePassOrder> = {},
  onWritten = () => {},
): Promise<ImagePassResult | undefined> {
  if (!isWholeOnDisk(timeline)) return undefined;
  const whole: ImagePassOrder = {
    snapshot: timeline.snapshot(),
    number: passes++,
    after: INVALID_LSN,
    imageCreationThreshold: 3,
    targetBytes: 1024 * 1024,
    force: true,
    ...order,
  };
  const now = () => 0;
  return await makeImages(whole, {
    resources: new Resources({ now, pause, cacheBytes: 16 * 8192 }),
    pause,
    rebuild: (collected, _key, into) => {
      into.bytes = bytesOf(joinedText(collected));
      into.offset = 0;
      return into.bytes.length;
    },
    onLayer: (written) => {
      onWritten();
      return timeline.addLayers([written]);
    },
  });
}

/** Which runs of delta layers to rewrite: `count` of them, the first is number `first`. */
interface Rewritten {
  readonly first: number;
  readonly count: number;
  readonly targetBytes: number;
}

/**
 * Rewrites delta layers in key order, in this isolate; returns how many were replaced and by how
 * many. Runs are counted from the oldest; all if `which` is not given. `onWritten` is called before
 * the written layers are taken over.
 */
export async function rewriteSome(
  timeline: Timeline,
  which: Partial<Rewritten> = {},
  onWritten = () => {},
): Promise<{ replaced: number; layers: number }> {
  const { first = 0, count = Infinity, targetBytes = 1024 * 1024 } = which;
  const snapshot = timeline.snapshot();
  const deltas = snapshot.layers.filter(({ kind }) => kind === "delta").toReversed();
  const runs = [...new Set(deltas.map(({ lsnEnd }) => lsnEnd))].slice(first, first + count);
  const layers = deltas.filter(({ lsnEnd }) => runs.includes(lsnEnd));
  const isDone = runs.length === 1 && layers.every(({ inKeyOrder }) => inKeyOrder);
  if (layers.length === 0 || isDone) return { replaced: 0, layers: 0 };
  const resources = new Resources({ now: () => 0, pause, cacheBytes: 16 * 8192 });
  const order = { snapshot, number: passes++, layers, targetBytes };
  const written = await rewriteDeltas(order, { resources, pause });
  onWritten();
  try {
    await timeline.addLayers(written, layers);
  } catch (thrown) {
    for (const { temporaryPath } of written) ifThere(() => Deno.removeSync(temporaryPath));
    throw thrown;
  }
  return { replaced: layers.length, layers: written.length };
}
