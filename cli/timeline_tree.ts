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
const NO_NAME = "_no_name_";

/** The lines of the tree; siblings in the order of their ids. */
export function treeLines(timelines: ListedTimeline[]): string[] {
  const known = new Set(timelines.map((timeline) => timeline.timeline_id));
  const children = new Map<string | null, ListedTimeline[]>();
  for (const timeline of [...timelines].sort(byId)) {
    const parent = timeline.ancestor_timeline_id;
    const key = parent !== null && known.has(parent) ? parent : null;
    children.set(key, [...children.get(key) ?? [], timeline]);
  }
  const lines: string[] = [];
  const label = (timeline: ListedTimeline) =>
    `${timeline.branch_name ?? NO_NAME} [${timeline.timeline_id}]`;
  const draw = (parent: string, padding: string) => {
    const below = children.get(parent) ?? [];
    below.forEach((timeline, i) => {
      const last = i === below.length - 1;
      const branch = last ? "┗━" : "┣━";
      lines.push(`(L) ${padding}${branch} @${timeline.ancestor_lsn}: ${label(timeline)}`);
      draw(timeline.timeline_id, padding + (last ? "   " : "┃  "));
    });
  };
  for (const root of children.get(null) ?? []) {
    lines.push(`(L) ${label(root)}`);
    draw(root.timeline_id, "");
  }
  return lines;
}

function byId(a: ListedTimeline, b: ListedTimeline): number {
  return a.timeline_id < b.timeline_id ? -1 : a.timeline_id > b.timeline_id ? 1 : 0;
}
