/** All tenants of one pageserver directory. */
import type { TenantId } from "../../libs/utils/id.ts";
import type { KeyInterner } from "./key_interner.ts";
import type { Tenant, TenantConfig } from "./tenant.ts";

function unbuilt(): never {
  throw new Error("Cannot do this yet: the repository is being built");
}

/** What the shell passes in. */
export interface RepositoryOptions {
  /** Milliseconds, monotonic. */
  now: () => number;
  /** Lets other work of the event loop run; background work calls it about every millisecond. */
  pause: () => Promise<void>;
  /** Bytes of the page cache over layer files. */
  cacheBytes?: number;
}

/** All tenants of one pageserver directory (`<directory>/tenants/<tenant>`). */
export class TenantManager {
  readonly interner!: KeyInterner;

  /** Reads which tenants are there; none is served before attach(). */
  static open(_directory: string, _options: RepositoryOptions): TenantManager {
    return unbuilt();
  }
  /** Every tenant with its durable generation; `tenant` where it is attached. */
  list(): { tenantId: TenantId; generation: number; tenant: Tenant | undefined }[] {
    return unbuilt();
  }
  /** Throws NotFound, or Unavailable if it is not attached. */
  tenant(_id: TenantId): Tenant {
    return unbuilt();
  }
  /** Creates or loads a tenant. Throws Conflict for a generation below the stored one. */
  attach(_id: TenantId, _generation: number, _config?: TenantConfig): Promise<Tenant> {
    return unbuilt();
  }
  /** Replaces the overrides durably. */
  setConfig(_id: TenantId, _config: TenantConfig): Promise<void> {
    return unbuilt();
  }
  /** Stops serving a tenant after a last flush; its files stay. */
  detach(_id: TenantId): Promise<void> {
    return unbuilt();
  }
  /** Removes a tenant and its files durably. */
  delete(_id: TenantId): Promise<void> {
    return unbuilt();
  }
  /** To be called about once a second: freezes layers that are open too long. */
  tick(): void {
    unbuilt();
  }
  /** Flushes everything and closes. */
  shutdown(): Promise<void> {
    return unbuilt();
  }
}
