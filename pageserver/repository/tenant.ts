/** Tenants. */
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { TimelineImporter } from "./importer.ts";
import type { Timeline } from "./timeline.ts";

/** Overrides as they came by HTTP; checkpoint_distance (bytes), checkpoint_timeout ("10m") are used. */
export type TenantConfig = Record<string, unknown>;

function unbuilt(): never {
  throw new Error("Cannot do this yet: the repository is being built");
}

/** One tenant, attached here. */
export class Tenant {
  readonly tenantId!: TenantId;
  generation!: number;
  config: TenantConfig = {};
  readonly timelines: Map<TimelineId, Timeline> = new Map();
  /** Timelines whose state cannot be read, and why. */
  readonly broken: Map<TimelineId, string> = new Map();

  /** Throws NotFound, or Corrupt for a broken one. */
  timeline(_id: TimelineId): Timeline {
    return unbuilt();
  }
  /**
   * Creates a branch durably; the same call again gives the same timeline. Without an LSN: the
   * ancestor's last record. Throws Conflict (exists, other parameters), BadRequest (LSN in the future
   * or before the ancestor's start), NotFound (no such ancestor).
   */
  createBranch(
    _id: TimelineId,
    _ancestorId: TimelineId,
    _ancestorLsn?: Lsn,
  ): Promise<Timeline> {
    return unbuilt();
  }
  /** Begins a root timeline; it exists once the importer's finish() has resolved. */
  importTimeline(_id: TimelineId, _pgVersion: number): TimelineImporter {
    return unbuilt();
  }
  /** Throws Conflict while it has children, NotFound. */
  deleteTimeline(_id: TimelineId): Promise<void> {
    return unbuilt();
  }
}
