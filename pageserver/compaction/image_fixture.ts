/** What tests of image layers share: a pass without a worker, over pages that are texts. */
import { isWholeOnDisk } from "../repository/timeline_snapshot.ts";
import { bytesOf, pause, textOf } from "../repository/repository_fixture.ts";
import type { Reconstruction } from "../repository/reconstruction.ts";
import { Resources } from "../repository/resources.ts";
import type { Timeline } from "../repository/timeline.ts";
import { INVALID_LSN } from "../../libs/utils/lsn.ts";
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
    onLayer: (layer, temporaryPath) => {
      onWritten();
      return timeline.addImageLayer(layer, temporaryPath);
    },
  });
}
