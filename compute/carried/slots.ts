/**
 * Logical replication slots of a running Postgres, carried into the timeline's WAL, so that a slot
 * outlives the Postgres that it was made in.
 *
 * A change in pg_replslot is noticed at once and carried after SETTLE_MS, within about a quarter of
 * a second: a slot that was made then survives a kill of everything. Where a consumer has come to
 * is carried every ADVANCE_MS, and only when that is worth it: carrying it too is WAL, which an
 * idle consumer would answer with an advance, and so on. A consumer that is given changes twice
 * after a crash knows that from its own position, as with any PostgreSQL.
 *
 * PostgreSQL lets go of catalog rows that a slot needed as soon as the slot's file says so. The one
 * that counts here is the copy in the storage: so the WAL proposer's own slot holds what the oldest
 * copy needs (hot standby feedback), and lets go when the quorum has a newer one. The same goes for
 * WAL, which the safekeepers keep.
 */
import { CARRIED_PREFIX, carriedKind, slotName } from "../../libs/basebackup/carried_files.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { SlotState } from "../../libs/postgres/replication_slot.ts";
import { messageOf, TimedOut } from "../../libs/utils/errors.ts";
import { encodeHex } from "../../libs/utils/hex.ts";
import { logger } from "../../libs/utils/log.ts";
import { type Lsn, maxLsn, parseLsn } from "../../libs/utils/lsn.ts";
import { oldestRestartLsn } from "./slot_wal.ts";
import { SLOT_NAME } from "../wal_proposer/postgres_stream.ts";
import {
  type ChangedFile,
  changedFiles,
  type KnownFiles,
  noteCarried,
  type PresentFile,
  presentFiles,
} from "./files.ts";

const log = logger("compute", "slots");

/** Changes that come in quick succession are carried together. */
const SETTLE_MS = 100;
/** Least time between two advances that are carried, and between two looks without a cause. */
const ADVANCE_MS = 5000;
/** A smaller advance is not carried before the stop. */
const ADVANCE_BYTES_MIN = 64 * 1024;
/** Longest wait for a quorum, and for Postgres to hold its catalogs. */
const COMMIT_MS_MAX = 10_000;
const HOLD_MS_MAX = 2000;
const HOLD_LOOK_MS = 2;
/** First major version whose messages can be flushed by themselves. */
const MAJOR_WITH_FLUSH = 17;
const XIDS = 2 ** 32;

/** What it works with. */
interface SlotCarrierOptions {
  readonly endpoint: string;
  readonly pgdata: string;
  readonly pgMajor: number;
  /** What the storage has; kept up to date. */
  readonly known: KnownFiles;
  /** The slots that the storage has, as it has them. */
  readonly slots: readonly SlotState[];
  connect(): Promise<PgClient>;
  /** See PostgresStream. */
  holdCatalog(catalogXmin: number): void;
  /** See WalProposer. */
  committed(lsn: Lsn, timeoutMs: number): Promise<void>;
  /** See WalProposer. */
  keepWalFrom(lsn: number): void;
  /** Called with what the storage may have: before it is told of a slot, after one is gone. */
  onSlots(names: readonly string[]): void;
}

/** See the head of the file. */
export class SlotCarrier {
  readonly #options: SlotCarrierOptions;
  /** The slots as the storage has them. */
  readonly #carried = new Map<string, SlotState>();
  /** When the last advance was carried, in ms of `performance.now`. */
  #carriedAtMs = -ADVANCE_MS;
  #held = 0;
  #watcher: Deno.FsWatcher | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #dueMs = Infinity;
  #turn: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: SlotCarrierOptions) {
    this.#options = options;
    for (const slot of options.slots) this.#carried.set(slot.name, slot);
  }

  /** Carries what changes from now on; resolves when what the storage has is held. */
  async start(): Promise<void> {
    this.#watch();
    if (this.#carried.size > 0) await this.#holdAll([...this.#carried.values()]);
    this.#carryWithin(0);
  }

  /** Ends it; what changed last is left to the stop. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#watcher?.close();
    clearTimeout(this.#timer);
    await this.#turn;
  }

  #watch(): void {
    try {
      this.#watcher = Deno.watchFs(`${this.#options.pgdata}/pg_replslot`);
    } catch (thrown) {
      this.#complain(thrown); // no inotify instance is left: it looks every ADVANCE_MS instead
    }
    this.#follow(this.#watcher).catch((thrown) => this.#complain(thrown));
  }

  async #follow(watcher: Deno.FsWatcher | undefined): Promise<void> {
    for await (const _event of watcher ?? []) this.#carryWithin(SETTLE_MS);
  }

  #complain(thrown: unknown): void {
    if (this.#stopped) return;
    log.warning("{endpoint}: slots are carried late: {why}", {
      endpoint: this.#options.endpoint,
      why: messageOf(thrown),
    });
  }

  /** Looks after `ms` at the latest. */
  #carryWithin(ms: number): void {
    const due = performance.now() + ms;
    if (this.#stopped || due >= this.#dueMs) return;
    clearTimeout(this.#timer);
    this.#dueMs = due;
    this.#timer = setTimeout(() => {
      this.#dueMs = Infinity;
      this.#turn = this.#turn.then(() => this.#carry())
        .catch((thrown) => this.#complain(thrown))
        .then(() => {
          const mustLook = this.#carried.size > 0 || this.#watcher === undefined;
          if (mustLook) this.#carryWithin(ADVANCE_MS);
        });
    }, ms);
  }

  /** The state that is left as it is in the storage, if that is good enough for now. */
  #staysAs(slot: SlotState): SlotState | undefined {
    const carried = this.#carried.get(slot.name);
    if (carried === undefined || carried.database !== slot.database) return undefined;
    const isEarly = performance.now() - this.#carriedAtMs < ADVANCE_MS;
    const advance = Math.max(
      slot.restartLsn - carried.restartLsn,
      slot.confirmedLsn - carried.confirmedLsn,
    );
    return isEarly || (advance >= 0 && advance < ADVANCE_BYTES_MIN) ? carried : undefined;
  }

  #look(): { present: PresentFile[]; changed: ChangedFile[] } {
    const { pgdata, known } = this.#options;
    const present = presentFiles(pgdata, false, (slot) => this.#staysAs(slot));
    return { present, changed: changedFiles(known, present, false) };
  }

  async #carry(): Promise<void> {
    if (this.#stopped || this.#look().changed.length === 0) return;
    const { known, onSlots, connect, committed } = this.#options;
    let { present, changed } = this.#look();
    const added = slotsOf(present).filter(({ name }) => !this.#carried.has(name));
    if (added.length > 0) {
      const wanted = oldestRestartLsn([...this.#carried.values(), ...added]);
      this.#options.keepWalFrom(wanted ?? Infinity);
      const noted = [...known.keys()].filter((path) => carriedKind(path) === "slot").map(slotName);
      onSlots([...new Set([...noted, ...added.map(({ name }) => name)])]);
      await this.#holdAll([...this.#carried.values(), ...added]);
      // What is carried must be no older than what is held from now on
      ({ present, changed } = this.#look());
    }
    const client = await connect();
    let end: Lsn;
    try {
      end = await emit(client, changed, this.#options.pgMajor);
    } finally {
      client.close();
    }
    await committed(end, COMMIT_MS_MAX);
    noteCarried(known, changed);
    this.#carriedAtMs = performance.now();
    this.#carried.clear();
    for (const slot of slotsOf(present)) this.#carried.set(slot.name, slot);
    onSlots([...this.#carried.keys()]);
    this.#options.keepWalFrom(oldestRestartLsn([...this.#carried.values()]) ?? Infinity);
    await this.#holdAll([...this.#carried.values()]);
  }

  /** Has the catalogs kept as the oldest of these slots needs them. */
  async #holdAll(slots: readonly SlotState[]): Promise<void> {
    const { connect, holdCatalog } = this.#options;
    const xids = slots.map(({ catalogXmin }) => catalogXmin).filter((xid) => xid !== 0);
    if (xids.length === 0) {
      if (this.#held !== 0) holdCatalog(0);
      this.#held = 0;
      return;
    }
    const client = await connect();
    try {
      const next = await nextXid(client);
      const full = Math.min(...xids.map((xid) => next - ((next - xid) % XIDS + XIDS) % XIDS));
      if (full === this.#held) return;
      holdCatalog(full);
      if (this.#held === 0) await untilHeld(client);
      this.#held = full;
    } finally {
      client.close();
    }
  }
}

function slotsOf(present: readonly PresentFile[]): SlotState[] {
  return present.flatMap(({ slot }) => slot ?? []);
}

/** The full id of the next transaction. */
async function nextXid(client: PgClient): Promise<number> {
  const { rows } = await client.query("SELECT pg_snapshot_xmax(pg_current_snapshot())");
  return Number(rows[0]![0]);
}

/** Waits until the WAL proposer's slot holds catalog rows. Throws TimedOut. */
async function untilHeld(client: PgClient): Promise<void> {
  const deadline = performance.now() + HOLD_MS_MAX;
  for (;;) {
    const { rows } = await client.query(
      `SELECT catalog_xmin FROM pg_get_replication_slots() WHERE slot_name = '${SLOT_NAME}'`,
    );
    if (typeof rows[0]?.[0] === "string") return;
    if (performance.now() > deadline) {
      throw new TimedOut("Postgres does not hold its catalogs for the slots");
    }
    await new Promise((resolve) => setTimeout(resolve, HOLD_LOOK_MS));
  }
}

/** Writes the messages, in order, and has them flushed; returns the end of the last. */
async function emit(
  client: PgClient,
  changed: readonly ChangedFile[],
  pgMajor: number,
): Promise<Lsn> {
  let end = parseLsn("0/0");
  for (const [index, { path, content }] of changed.entries()) {
    const message = `false, '${CARRIED_PREFIX}${path}', '\\x${encodeHex(content)}'::bytea`;
    const isLast = index === changed.length - 1;
    // Before 17 only a transaction that has an id is flushed with its commit
    const flushing = pgMajor >= MAJOR_WITH_FLUSH
      ? `pg_logical_emit_message(${message}, ${isLast})`
      : `pg_logical_emit_message(${message})${isLast ? ", pg_current_xact_id()" : ""}`;
    const { rows } = await client.query(`SELECT ${flushing}`);
    end = maxLsn(end, parseLsn(rows[0]![0]!));
  }
  return end;
}
