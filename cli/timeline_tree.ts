/**
 * Draws the timelines of a tenant as a tree:
 *
 *     (L) main [de200bd42b49cc1814412c7e592dd6e9]
 *     (L) ┣━ @0/16F9A00: migration_check [b3b863fa45fa9e57e615f9f2d944e601]
 *     (L) ┃  ┗━ @0/16FA000: deeper [1b2c63fa45fa9e57e615f9f2d944e601]
 *     (L) ┗━ @0/16F9B00: other [c3b863fa45fa9e57e615f9f2d944e601]
 */

/** A timeline as it is listed; the keys are those of `timeline list --json`. */
export interface ListedTimeline {
  branch_name: string | null;
  timeline_id: string;
  ancestor_timeline_id: string | null;
  ancestor_lsn: string | null;
  last_record_lsn: string;
}

/** What a timeline without a branch name is called. */
export const NO_NAME = "_no_name_";

/** A timeline in its place in the tree: `drawing` is "┃  ┗━ ", empty for a root. */
interface TreeRow<T> {
  drawing: string;
  timeline: T;
}

/** The timelines from the roots down; siblings in the order of their ids. */
export function treeRows<T extends Pick<ListedTimeline, "timeline_id" | "ancestor_timeline_id">>(
  timelines: readonly T[],
): TreeRow<T>[] {
  const known = new Set(timelines.map((timeline) => timeline.timeline_id));
  const children = new Map<string | null, T[]>();
  for (const timeline of [...timelines].sort(byId)) {
    const parent = timeline.ancestor_timeline_id;
    const key = parent !== null && known.has(parent) ? parent : null;
    children.set(key, [...children.get(key) ?? [], timeline]);
  }
  const rows: TreeRow<T>[] = [];
  const draw = (parent: string, padding: string) => {
    const below = children.get(parent) ?? [];
    below.forEach((timeline, i) => {
      const last = i === below.length - 1;
      rows.push({ drawing: `${padding}${last ? "┗━" : "┣━"} `, timeline });
      draw(timeline.timeline_id, padding + (last ? "   " : "┃  "));
    });
  };
  for (const root of children.get(null) ?? []) {
    rows.push({ drawing: "", timeline: root });
    draw(root.timeline_id, "");
  }
  return rows;
}

/** The lines of the tree. */
export function treeLines(timelines: readonly ListedTimeline[]): string[] {
  return treeRows(timelines).map(({ drawing, timeline }) => {
    const at = drawing === "" ? "" : `@${timeline.ancestor_lsn}: `;
    return `(L) ${drawing}${at}${timeline.branch_name ?? NO_NAME} [${timeline.timeline_id}]`;
  });
}

function byId(a: { timeline_id: string }, b: { timeline_id: string }): number {
  return a.timeline_id < b.timeline_id ? -1 : a.timeline_id > b.timeline_id ? 1 : 0;
}
