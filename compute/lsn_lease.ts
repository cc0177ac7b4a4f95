/**
 * A lease on an LSN of a timeline: the pageserver keeps what is needed to read there for as long as
 * the lease is renewed, which happens here in the background until it is given up.
 *
 * The lease of an endpoint that goes on moves forward with it, so that the pageserver need not keep
 * for ever what was when it started. Pages are asked for "as of the lease's LSN, not modified since
 * the start": one that Postgres has not got yet is the same at both, because whatever changes a
 * page reads it first or makes it from nothing, and then it is in Postgres's own buffers and files.
 * So for a primary any LSN that is committed will do. For a replica it is one that it has replayed:
 * ahead of that a page may lack rows that its queries still see.
 */
import { BadRequest, messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { connectPageserver } from "./basebackup.ts";
import type { EndpointSpec } from "./client.ts";
import { updateArena } from "./lazy_files/arena.ts";

const log = logger("compute", "lease");

/** A lease is renewed when this part of its time is over: then two renewals may fail. */
const RENEW_AFTER = 1 / 3;
/** Pause after a renewal that did not reach the pageserver, and the shortest between any two. */
const RETRY_MS = 5000;
/** The longest: a third of the ten minutes that pageservers give, whatever the clocks show. */
const RENEW_MS_MAX = 200_000;

/** Takes the lease; returns until when it is valid, in Unix ms. Throws BadRequest if refused. */
export async function takeLease(spec: EndpointSpec, lsn: Lsn): Promise<number> {
  const { tenant_id, timeline_id } = spec;
  const client = await connectPageserver(spec);
  try {
    const { rows } = await client.query(`lease lsn ${tenant_id} ${timeline_id} ${formatLsn(lsn)}`);
    const validUntil = rows[0]?.[0];
    if (typeof validUntil === "string") return Number(validUntil);
  } finally {
    client.close();
  }
  throw new BadRequest(
    `Cannot read timeline ${timeline_id} at ${formatLsn(lsn)}: the pageserver does not have it`,
  );
}

/** Whose lease it is. */
interface LeaseOptions {
  /** With the token of now. */
  readonly spec: () => EndpointSpec;
  /** Where pages are asked for. */
  readonly arena: string;
  /** Where they are asked for at first. */
  readonly lsn: Lsn;
  /** Where they may be asked for by now; undefined if that is not known. */
  readonly position: () => Promise<Lsn | undefined>;
}

/**
 * How long to wait before a lease is renewed that is valid until `validUntil` by the pageserver's
 * clock; ours shows `now` and may be wrong, or have jumped.
 */
export function renewAfterMs(validUntil: number, now: number): number {
  return Math.min(RENEW_MS_MAX, Math.max(RETRY_MS, (validUntil - now) * RENEW_AFTER));
}

/** See the head of the file. */
export class LsnLease {
  readonly #options: LeaseOptions;
  #lsn: Lsn;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #given = false;

  /** Renews from now on; a lease that was taken is valid until `validUntil`, else 0. */
  constructor(options: LeaseOptions, validUntil: number) {
    this.#options = options;
    this.#lsn = options.lsn;
    this.#waitFor(validUntil);
  }

  #waitFor(validUntil: number): void {
    if (this.#given) return;
    this.#timer = setTimeout(() => {
      void this.#renew();
    }, validUntil === 0 ? 0 : renewAfterMs(validUntil, Date.now()));
  }

  async #renew(): Promise<void> {
    let validUntil = Date.now();
    try {
      validUntil = await this.#move() ?? await takeLease(this.#options.spec(), this.#lsn);
    } catch (thrown) {
      log.warning("{endpoint}: cannot renew its lease of {lsn}: {why}", {
        endpoint: this.#options.spec().endpoint_id,
        lsn: formatLsn(this.#lsn),
        why: messageOf(thrown),
      });
    }
    this.#waitFor(validUntil);
  }

  /** Moves forward if that is possible; then until when the new lease is valid. */
  async #move(): Promise<number | undefined> {
    const { spec, arena, position } = this.#options;
    const lsn = await position();
    if (lsn === undefined || lsn <= this.#lsn) return undefined;
    let validUntil: number;
    try {
      validUntil = await takeLease(spec(), lsn);
    } catch (thrown) {
      if (thrown instanceof BadRequest) return undefined; // it is not there yet
      throw thrown;
    }
    if (this.#given) return undefined;
    // The lease before ends by its time only: fetches that are under way are covered
    updateArena(arena, { requestLsn: lsn });
    this.#lsn = lsn;
    return validUntil;
  }

  /** Stops renewing: the lease ends when its time is over. */
  giveUp(): void {
    this.#given = true;
    clearTimeout(this.#timer);
  }
}
