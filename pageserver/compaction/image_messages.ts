/** What is said between the pageserver and the worker that makes its image layers. */
import type { LayerDescription } from "../repository/layer_format.ts";
import type { ImagePassOrder, ImagePassResult } from "./image_pass.ts";

/** Indexes of the numbers that are shared with the worker. */
export const Pace = {
  /** Milliseconds of rest for each millisecond of work. */
  rest: 0,
  /** 1: give up. */
  stop: 1,
} as const;

/** What the worker is sent. */
export interface ImageWorkerOrder {
  readonly order: ImagePassOrder;
  /** As Pace says. */
  readonly pace: Int32Array<SharedArrayBuffer>;
}

/** What it answers: any number of layers, then one of the others. */
export type ImageWorkerMessage =
  | { readonly kind: "layer"; readonly layer: LayerDescription; readonly temporaryPath: string }
  | { readonly kind: "done"; readonly result: ImagePassResult }
  | { readonly kind: "failed"; readonly why: string };
