/** What is said between the pageserver and the worker that compacts a timeline. */
import type { LayerDescription } from "../repository/layer_format.ts";
import type { WrittenLayer } from "../repository/timeline_flush.ts";
import type { CompactionOrder, CompactionPassResult } from "./compaction_pass.ts";

/** Indexes of the numbers that are shared with the worker. */
export const Pace = {
  /** Milliseconds of rest for each millisecond of work. */
  rest: 0,
  /** 1: give up. */
  stop: 1,
} as const;

/** What the worker is sent. */
export interface CompactionWorkerOrder {
  readonly order: CompactionOrder;
  /** As Pace says. */
  readonly pace: Int32Array<SharedArrayBuffer>;
}

/** Layers that are written, and those in whose place they come. */
export interface WrittenLayers {
  readonly written: readonly WrittenLayer[];
  readonly replaced: readonly LayerDescription[];
}

/** What it answers: any number of times layers, then one of the others. */
export type CompactionWorkerMessage =
  | { readonly kind: "layers"; readonly layers: WrittenLayers }
  | { readonly kind: "done"; readonly result: CompactionPassResult }
  | { readonly kind: "failed"; readonly why: string };
