/**
 * A lease on an LSN of a timeline: the pageserver keeps what is needed to read there for as long as
 * the lease is renewed, which happens here in the background until it is given up.
 */
import { BadRequest, messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { connectPageserver } from "./basebackup.ts";
import type { EndpointSpec } from "./client.ts";

const log = logger("compute", "lease");

/** A lease is renewed when this part of its time is over: then two renewals may fail. */
const RENEW_AFTER = 1 / 3;
/** Pause after a renewal that did not reach the pageserver, and the shortest between any two. */
const RETRY_MS = 5000;

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

/** See the head of the file. */
export class LsnLease {
  readonly #spec: () => EndpointSpec;
  readonly #lsn: Lsn;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #given = false;
  #renewing: Promise<void> = Promise.resolve();

  /** Renews from now on, with the token of then; a lease that was taken is valid until `validUntil`, else 0. */
  constructor(spec: () => EndpointSpec, lsn: Lsn, validUntil: number) {
    this.#spec = spec;
    this.#lsn = lsn;
    this.#waitFor(validUntil);
  }

  #waitFor(validUntil: number): void {
    if (this.#given) return;
    const left = (validUntil - Date.now()) * RENEW_AFTER;
    this.#timer = setTimeout(() => {
      this.#renewing = this.#renew();
    }, validUntil === 0 ? 0 : Math.max(left, RETRY_MS));
  }

  async #renew(): Promise<void> {
    let validUntil = Date.now();
    try {
      validUntil = await takeLease(this.#spec(), this.#lsn);
    } catch (thrown) {
      log.warning("{endpoint}: cannot renew its lease of {lsn}: {why}", {
        endpoint: this.#spec().endpoint_id,
        lsn: formatLsn(this.#lsn),
        why: messageOf(thrown),
      });
    }
    this.#waitFor(validUntil);
  }

  /** Stops renewing: the lease ends when its time is over. */
  async giveUp(): Promise<void> {
    this.#given = true;
    clearTimeout(this.#timer);
    await this.#renewing;
  }
}
