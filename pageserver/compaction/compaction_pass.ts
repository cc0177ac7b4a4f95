/**
 * One pass over a timeline: image layers first (image_pass.ts), because what has images needs no
 * order; then, if it is time, some delta layers become one run in key order (delta_pass.ts).
 *
 * What keeps a rewrite from being done is told with the result: the images stay.
 */
import { messageOf } from "../../libs/utils/errors.ts";
import { type LayerDescription, layerFileName } from "../repository/layer_format.ts";
import type { Resources } from "../repository/resources.ts";
import type { WrittenLayers } from "./compaction_messages.ts";
import { rewriteDeltas } from "./delta_pass.ts";
import { scatteredLayers, stackedLayers } from "./delta_plan.ts";
import {
  type ImagePassOrder,
  type ImagePassResult,
  makeImages,
  type Rebuild,
} from "./image_pass.ts";

/** What to look at, and how. */
export interface CompactionOrder extends ImagePassOrder {
  readonly compactionThreshold: number;
  /** Delta layers may be rewritten. */
  readonly mayRewrite: boolean;
}

/** What became of delta layers. */
export interface RewriteResult {
  /** Layers that were replaced, and those that were written. */
  readonly replaced: number;
  readonly layers: number;
  readonly bytes: number;
  /** Why it could not be done, though it was time. */
  readonly failure: string | undefined;
}

/** What a pass came to. */
export interface CompactionPassResult {
  readonly images: ImagePassResult;
  readonly deltas: RewriteResult;
}

const NOTHING: RewriteResult = { replaced: 0, layers: 0, bytes: 0, failure: undefined };

/** What a pass is given beside its order. */
interface CompactionPassContext {
  readonly resources: Resources;
  readonly rebuild: Rebuild;
  /** Called after every few pages or entries; throws to stop the pass. */
  readonly pause: () => Promise<void>;
  /** Layers are written and synced; they are the receiver's from now on. */
  readonly onLayers: (layers: WrittenLayers) => Promise<void> | void;
  /** Whether it was stopped by pause(). */
  readonly isStopped: () => boolean;
}

/** The pass. */
export async function compactTimeline(
  order: CompactionOrder,
  context: CompactionPassContext,
): Promise<CompactionPassResult> {
  const { resources, rebuild, pause, onLayers, isStopped } = context;
  const images = await makeImages(order, {
    resources,
    rebuild,
    pause,
    onLayer: (written) => onLayers({ written: [written], replaced: [] }),
  });
  const layers = order.mayRewrite ? layersToRewrite(order, images) : [];
  if (layers.length === 0) return { images, deltas: NOTHING };
  try {
    const { snapshot, number, targetBytes } = order;
    const written = await rewriteDeltas({ snapshot, number, layers, targetBytes }, context);
    await onLayers({ written, replaced: layers });
    const bytes = written.reduce((sum, { layer }) => sum + layer.sizeBytes, 0);
    const deltas = {
      replaced: layers.length,
      layers: written.length,
      bytes,
      failure: undefined,
    };
    return { images, deltas };
  } catch (thrown) {
    if (isStopped()) throw thrown;
    return { images, deltas: { ...NOTHING, failure: messageOf(thrown) } };
  }
}

function layersToRewrite(
  { snapshot, compactionThreshold }: CompactionOrder,
  { scatteredReads }: ImagePassResult,
): LayerDescription[] {
  const readsOf = (layer: LayerDescription) => scatteredReads.get(layerFileName(layer)) ?? 0;
  const scattered = scatteredLayers(snapshot.layers, readsOf);
  return scattered.length > 0 ? scattered : stackedLayers(snapshot.layers, compactionThreshold);
}
