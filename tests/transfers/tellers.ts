/**
 * Tellers move money: each on a connection of its own, one transfer after the other, with notes of
 * what came of each (transfer_log.ts). A connection that breaks is made again for as long as they
 * work. Some transfers fail: an account would be overdrawn, or the teller thinks better of it.
 *
 * They also know when: whether each of them gets on, and whether one got an acknowledgement in a
 * time when there can be none.
 */
import assert from "node:assert/strict";
import type { PgClient } from "../../libs/pgwire/client.ts";
import { ServerError } from "../../libs/pgwire/messages.ts";
import type { SeededRandom } from "../load/random.ts";
import { ACCOUNTS, connectTo, transferSql } from "./bank.ts";
import { TransferLog } from "./transfer_log.ts";

/** Pause before a teller connects again, so that a dead endpoint is not hammered. */
const RECONNECT_PAUSE_MS = 20;
const AMOUNT_MAX = 400;
/** One in so many transfers is rolled back. */
const ROLLBACK_EVERY = 20;
/** Ids of one teller's transfers start at its number times this. */
const IDS_EACH = 1e7;
/** How often whoever waits for progress looks. */
const LOOK_MS = 10;

/** One of them, as the others see it. */
interface Teller {
  readonly number: number;
  readonly random: SeededRandom;
  transfers: number;
  /** When the newest acknowledged transfer began. */
  acknowledgedBegan: number;
  /** COMMIT was sent and not answered. */
  isCommitting: boolean;
}

/** A time in which nothing can commit. */
interface Standstill {
  readonly since: number;
  readonly acknowledged: number;
  /** Commits that were under way when it began: they may have been answered before. */
  readonly underWay: number;
}

/** See the head of the file. */
export class Tellers {
  readonly log = new TransferLog();
  /** The longest time that progress of all of them took, in ms. */
  slowestMs = 0;
  readonly #port: number;
  readonly #tellers: Teller[];
  readonly #closing = new AbortController();
  #running: Promise<void>[] = [];
  #stopped = false;
  #standstill: Standstill | undefined;
  #violations: string[] = [];

  constructor(port: number, count: number, random: SeededRandom) {
    this.#port = port;
    this.#tellers = Array.from({ length: count }, (_, i) => ({
      number: i + 1,
      random: random.fork(),
      transfers: 0,
      acknowledgedBegan: -Infinity,
      isCommitting: false,
    }));
  }

  start(): void {
    this.#running = this.#tellers.map((teller) => this.#work(teller));
  }

  /** Ends the work; resolves when no transfer is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** Ends the work, whatever it waits for. */
  async abandon(): Promise<void> {
    this.#closing.abort();
    await this.stop();
  }

  async #work(teller: Teller): Promise<void> {
    while (!this.#stopped) {
      let client: PgClient | undefined;
      try {
        client = await connectTo(this.#port, this.#closing.signal);
        while (!this.#stopped) await this.#transfer(client, teller);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_PAUSE_MS));
      } finally {
        client?.close();
      }
    }
  }

  /** One transfer. Throws when the connection has broken. */
  async #transfer(client: PgClient, teller: Teller): Promise<void> {
    const { random } = teller;
    const began = performance.now();
    const id = teller.number * IDS_EACH + ++teller.transfers;
    const source = random.between(1, ACCOUNTS);
    const target = 1 + (source + random.between(0, ACCOUNTS - 2)) % ACCOUNTS;
    const amount = random.between(1, AMOUNT_MAX);
    const isWanted = random.between(1, ROLLBACK_EVERY) > 1;
    this.log.attempt(id);
    try {
      await client.query(transferSql({ id, source, target, amount }));
      if (!isWanted) await client.query("rollback");
    } catch (thrown) {
      this.log.note(id, "failed"); // without a COMMIT nothing can come of it
      if (!(thrown instanceof ServerError)) throw thrown;
      await client.query("rollback");
      return;
    }
    if (!isWanted) return this.log.note(id, "failed");
    if (await this.#commit(client, teller, id)) teller.acknowledgedBegan = began;
  }

  /** False if the transfer was refused. Throws when nobody knows. */
  async #commit(client: PgClient, teller: Teller, id: number): Promise<boolean> {
    const sent = performance.now();
    teller.isCommitting = true;
    let tag: string;
    try {
      ({ tag } = await client.query("commit"));
    } catch (thrown) {
      this.log.note(id, thrown instanceof ServerError ? "failed" : "unknown");
      if (!(thrown instanceof ServerError)) throw thrown;
      return false;
    } finally {
      teller.isCommitting = false;
    }
    const isCommitted = tag === "COMMIT"; // else ROLLBACK, of a transaction that has failed
    this.log.note(id, isCommitted ? "acknowledged" : "failed");
    if (!isCommitted) return false;
    if (this.#standstill !== undefined && sent >= this.#standstill.since) {
      this.#violations.push(`transfer ${id} was acknowledged while no majority was up`);
    }
    return true;
  }

  /** Waits until each has an acknowledgement of a transfer that began from now on. */
  async progress(limitMs: number): Promise<void> {
    const since = performance.now();
    for (;;) {
      const behind = this.#tellers.filter((teller) => teller.acknowledgedBegan < since);
      const tookMs = performance.now() - since;
      if (behind.length === 0) {
        this.slowestMs = Math.max(this.slowestMs, tookMs);
        return;
      }
      if (tookMs > limitMs) {
        const numbers = behind.map((teller) => teller.number).join(", ");
        throw new Error(`Cannot see progress of tellers ${numbers} within ${limitMs / 1000} s`);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** From now on nothing can commit. */
  standstillBegins(): void {
    this.#standstill = {
      since: performance.now(),
      acknowledged: this.log.count("acknowledged"),
      underWay: this.#tellers.filter((teller) => teller.isCommitting).length,
    };
  }

  /** Whether a COMMIT was sent and not answered; all others then wait for its locks in the end. */
  get isCommitUnderWay(): boolean {
    return this.#tellers.some(({ isCommitting }) => isCommitting);
  }

  /** From now on things may commit again. Throws if something did before. */
  standstillEnds(): void {
    const { acknowledged, underWay } = this.#standstill!;
    this.#standstill = undefined;
    assert.deepEqual(this.#violations, []);
    const more = this.log.count("acknowledged") - acknowledged;
    assert.ok(more <= underWay, `${more} commits in a standstill, ${underWay} were under way`);
  }
}
