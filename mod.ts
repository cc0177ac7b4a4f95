/**
 * Neon as a library: start a local Neon inside a program or a test, make tenants, branches and
 * endpoints, and dispose of it all. The `neon` command calls the same functions.
 *
 * @module
 */
export {
  LocalNeon,
  type LocalNeonOptions,
  type RunningEndpoint,
  startLocalNeon,
} from "./cli/local_neon.ts";
export type { CreatedTenant, CreateTenantOptions } from "./cli/control_plane/tenants.ts";
export type { BranchOptions, CreatedBranch } from "./cli/control_plane/timelines.ts";
export type { EndpointOptions, ListedEndpoint } from "./cli/control_plane/endpoints.ts";
export type { ListedTimeline } from "./cli/timeline_tree.ts";
