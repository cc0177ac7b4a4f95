/**
 * All tenants of one pageserver directory.
 *
 * At the start nothing is served: the control plane attaches each tenant with its generation
 * number, which only ever goes up. Several calls for one tenant run one after the other.
 */
import { makeDirectory } from "../../libs/utils/durable.ts";
import { Conflict, messageOf, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { parseTenantId, type TenantId } from "../../libs/utils/id.ts";
import { logger } from "../../libs/utils/log.ts";
import type { KeyInterner } from "./key_interner.ts";
import { type RepositoryOptions, type RepositoryStats, Resources } from "./resources.ts";
import { Tenant } from "./tenant.ts";
import {
  readTenantState,
  type TenantConfig,
  type TenantState,
  timelineSettings,
  writeTenantState,
} from "./tenant_config.ts";
import { listDirectories, removeDirectory, TIMELINES_NAME } from "./tenant_directory.ts";

const log = logger("pageserver", "tenant");

interface Place {
  /** Made up while there is a `problem`. */
  state: TenantState;
  /** Why its state cannot be read: it is not served, and nothing of it is written. */
  problem?: string;
  tenant: Tenant | undefined;
  /** The end of the last change that was asked for. */
  busy: Promise<unknown>;
}

/** One row of TenantManager.list(). */
interface TenantSummary {
  readonly tenantId: TenantId;
  readonly generation: number;
  readonly config: TenantConfig;
  /** Undefined while it is not attached here. */
  readonly tenant: Tenant | undefined;
  /** Why it cannot be attached. */
  readonly problem: string | undefined;
}

/** All tenants of one pageserver directory (`<directory>/tenants`). */
export class TenantManager {
  readonly #directory: string;
  readonly #resources: Resources;
  readonly #places = new Map<TenantId, Place>();

  private constructor(directory: string, options: RepositoryOptions) {
    this.#directory = `${directory}/tenants`;
    this.#resources = new Resources(options);
  }

  /** Reads which tenants are there. One whose state cannot be read is refused alone. */
  static open(directory: string, options: RepositoryOptions): TenantManager {
    const manager = new TenantManager(directory, options);
    makeDirectory(manager.#directory);
    for (const id of listDirectories(manager.#directory, parseTenantId)) {
      manager.#found(id);
    }
    return manager;
  }

  /** The interner of all timelines. */
  get interner(): KeyInterner {
    return this.#resources.interner;
  }

  /** Counters and limits, for the metrics page. */
  stats(): RepositoryStats {
    return this.#resources.stats();
  }

  /** Every tenant that has files here. */
  list(): TenantSummary[] {
    return [...this.#places].map(([tenantId, { state, tenant, problem }]) => ({
      tenantId,
      generation: state.generation,
      config: state.config,
      tenant,
      problem,
    }));
  }

  /** The tenant. Throws NotFound, or Unavailable while it is not attached. */
  tenant(id: TenantId): Tenant {
    const place = this.#readable(id);
    if (place.tenant === undefined) {
      throw new Unavailable(`Cannot use tenant ${id}: it is not attached`);
    }
    return place.tenant;
  }

  /**
   * Attaches a tenant, creating it if it is new; durable. Again with a newer generation or other
   * settings: takes them over. Without `config` the stored settings stay. Throws Conflict for a
   * generation below the stored one, Unavailable if its state still cannot be read.
   */
  attach(id: TenantId, generation: number, config?: TenantConfig): Promise<Tenant> {
    if (config !== undefined) timelineSettings(config); // refuse a bad value first
    const known = this.#places.get(id);
    const place: Place = known ??
      {
        state: { generation, attached: true, config: {} },
        tenant: undefined,
        busy: Promise.resolve(),
      };
    this.#places.set(id, place);
    const attached = this.#inTurn(place, async () => {
      // What it waited for has deleted the tenant, or could not make it
      if (this.#places.get(id) !== place) return await this.attach(id, generation, config);
      if (place.problem !== undefined) this.#readAgain(id, place);
      const stored = place.state.generation;
      if (generation < stored) {
        throw new Conflict(
          `Cannot attach tenant ${id} with generation ${generation}: ${stored} was attached`,
        );
      }
      const directory = `${this.#directory}/${id}`;
      makeDirectory(directory);
      await this.#save(id, place, {
        generation,
        attached: true,
        config: config ?? place.state.config,
      });
      place.tenant ??= new Tenant({
        tenantId: id,
        directory,
        generation,
        config: place.state.config,
        resources: this.#resources,
      });
      place.tenant.update(generation, place.state.config);
      return place.tenant;
    });
    return attached.catch((thrown) => {
      if (known === undefined && place.tenant === undefined) this.#places.delete(id);
      throw thrown;
    });
  }

  /** Replaces a tenant's settings durably. Throws NotFound, BadRequest. */
  setConfig(id: TenantId, config: TenantConfig): Promise<void> {
    timelineSettings(config);
    const place = this.#readable(id);
    return this.#inTurnIfThere(id, place, async () => {
      await this.#save(id, place, { ...place.state, config });
      place.tenant?.update(place.state.generation, config);
    });
  }

  /** Stops serving a tenant, after a last flush; its files stay. Throws NotFound, Unavailable. */
  detach(id: TenantId): Promise<void> {
    const place = this.#readable(id);
    return this.#inTurnIfThere(id, place, async () => {
      await place.tenant?.close();
      place.tenant = undefined;
      await this.#save(id, place, { ...place.state, attached: false });
    });
  }

  /** Removes a tenant and all its files durably. Throws NotFound. */
  delete(id: TenantId): Promise<void> {
    const place = this.#place(id);
    return this.#inTurnIfThere(id, place, async () => {
      await place.tenant?.close();
      place.tenant = undefined;
      removeDirectory(`${this.#directory}/${id}`);
      this.#places.delete(id);
    });
  }

  /**
   * To be called about once a second: flushes in the background what is not durable for too long.
   */
  tick(): void {
    for (const { tenant } of this.#places.values()) {
      for (const timeline of tenant?.timelines.values() ?? []) timeline.tick();
    }
  }

  /** Forgets pages of layer files that are only kept to be faster. */
  forgetPages(): void {
    this.#resources.cache.clear();
  }

  /** Gives back the buffers of scans, in which the next one puts what it reads. */
  forgetScans(): void {
    this.#resources.cache.forgetScans();
  }

  /** Flushes and closes everything. */
  async shutdown(): Promise<void> {
    for (const place of this.#places.values()) {
      await this.#inTurn(place, async () => {
        await place.tenant?.close();
        place.tenant = undefined;
      });
    }
  }

  #found(id: TenantId): void {
    const directory = `${this.#directory}/${id}`;
    const place: Place = {
      state: { generation: 0, attached: false, config: {} },
      tenant: undefined,
      busy: Promise.resolve(),
    };
    try {
      place.state = readTenantState(directory);
    } catch (thrown) {
      const isMissing = thrown instanceof Deno.errors.NotFound;
      const hasTimelines = [...Deno.readDirSync(directory)]
        .some((entry) => entry.name === TIMELINES_NAME);
      if (isMissing && !hasTimelines) {
        return removeDirectory(directory); // its creation was not finished
      }
      place.problem = isMissing
        ? `Cannot read tenant directory "${directory}": its config file is missing`
        : messageOf(thrown);
      log.error("tenant {id} is not served: {why}", { id, why: place.problem });
    }
    this.#places.set(id, place);
  }

  /** Somebody may have put a good copy back. */
  #readAgain(id: TenantId, place: Place): void {
    try {
      place.state = readTenantState(`${this.#directory}/${id}`);
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.NotFound)) place.problem = messageOf(thrown);
      throw unreadable(id, place.problem!);
    }
    delete place.problem;
  }

  #readable(id: TenantId): Place {
    const place = this.#place(id);
    if (place.problem !== undefined) throw unreadable(id, place.problem);
    return place;
  }

  #place(id: TenantId): Place {
    const place = this.#places.get(id);
    if (place === undefined) throw notFound(id);
    return place;
  }

  #inTurn<T>(place: Place, work: () => Promise<T>): Promise<T> {
    const done = place.busy.then(work, work);
    place.busy = done.catch(() => {});
    return done;
  }

  /** The same for a tenant that may be gone when its turn comes. */
  #inTurnIfThere(id: TenantId, place: Place, work: () => Promise<void>): Promise<void> {
    return this.#inTurn(place, async () => {
      if (this.#places.get(id) !== place) throw notFound(id);
      await work();
    });
  }

  async #save(id: TenantId, place: Place, state: TenantState): Promise<void> {
    await writeTenantState(`${this.#directory}/${id}`, state);
    place.state = state;
  }
}

function notFound(id: TenantId): NotFound {
  return new NotFound(`Cannot find tenant ${id}`);
}

function unreadable(id: TenantId, why: string): Unavailable {
  return new Unavailable(
    `Cannot use tenant ${id}: ${why}; put a good copy of the file back and run "neon start", or ` +
      `remove all of the tenant with DELETE /v1/tenant/${id}`,
  );
}
