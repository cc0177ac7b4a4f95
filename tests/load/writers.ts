/**
 * Writers that keep their own log: each inserts numbered rows, one transaction a row, and
 * remembers, outside the database, which commits were acknowledged. Whatever is killed meanwhile,
 * every remembered row has to be there afterwards. A connection that breaks is made again for as
 * long as the load runs; the row that was under way may be there or not.
 */
import assert from "node:assert/strict";
import { openSql, type Sql } from "../harness.ts";

/** Pause before a writer connects again, so that a dead endpoint is not hammered. */
const RECONNECT_PAUSE_MS = 20;

/** Longest wait for one more acknowledged row: a start after a crash under load is far shorter. */
const PROGRESS_MS_MAX = 120_000;

/** Longest wait for statements under way at the end. */
const STOP_MS_MAX = 20_000;

/** The table that writers write. */
export async function createLedger(sql: Sql): Promise<void> {
  await sql`create table ledger(writer int, number int, filler text, primary key (writer, number))`;
}

/** Writers on one endpoint. */
export class Writers {
  readonly #port: number;
  readonly #acknowledged: number[];
  readonly #attempted: number[];
  /** Acknowledged rows as [writer, number]. */
  readonly #log: [number, number][] = [];
  #running: Promise<void>[] = [];
  readonly #clients = new Set<Sql>();
  #stopped = true;
  #progress: (() => void) | undefined;

  constructor(port: number, count: number) {
    this.#port = port;
    this.#acknowledged = new Array<number>(count).fill(0);
    this.#attempted = new Array<number>(count).fill(0);
  }

  /** Rows whose commit was acknowledged, all writers together. */
  get acknowledged(): number {
    return this.#acknowledged.reduce((sum, n) => sum + n, 0);
  }

  start(): void {
    this.#stopped = false;
    this.#running = this.#acknowledged.map((_, writer) => this.#write(writer));
  }

  /** Ends the load; resolves when no statement is under way. One that hangs is given up. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const giveUp = () => this.#clients.forEach((sql) => sql.end({ timeout: 0 }));
    const timer = setTimeout(giveUp, STOP_MS_MAX);
    await Promise.all(this.#running);
    clearTimeout(timer);
  }

  /** Resolves when `count` more rows were acknowledged; rejects when none is for too long. */
  async more(count: number): Promise<void> {
    const wanted = this.acknowledged + count;
    while (this.acknowledged < wanted) {
      await new Promise<void>((resolve, reject) => {
        const late = () =>
          reject(new Error(`Cannot go on: ${this.acknowledged} rows, no more come`));
        const timer = setTimeout(late, PROGRESS_MS_MAX);
        this.#progress = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async #write(writer: number): Promise<void> {
    while (!this.#stopped) {
      const sql = openSql(this.#port);
      this.#clients.add(sql);
      try {
        while (!this.#stopped) await this.#writeOne(sql, writer);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_PAUSE_MS));
      } finally {
        this.#clients.delete(sql);
        await sql.end({ timeout: 0 });
      }
    }
  }

  async #writeOne(sql: Sql, writer: number): Promise<void> {
    // A number is tried once: a retry could not tell "was there already" from "acknowledged twice".
    const number = ++this.#attempted[writer]!;
    await sql`insert into ledger values (${writer}, ${number}, ${"x".repeat(number % 200)})`;
    this.#log.push([writer, number]);
    this.#acknowledged[writer]!++;
    this.#progress?.();
  }

  /** Throws unless every acknowledged row is there, once, and nothing that was never written. */
  async check(sql: Sql): Promise<void> {
    const expected = [...this.#log];
    const rows = await sql<{ writer: number; number: number }[]>`
      select writer, number from ledger order by 1, 2`;
    const present = new Set(rows.map((row) => `${row.writer}/${row.number}`));
    assert.equal(present.size, rows.length, "no row is there twice");
    const missing = expected.filter(([writer, number]) => !present.has(`${writer}/${number}`));
    assert.deepEqual(missing, [], "every acknowledged row is there");
    const invented = rows.filter((row) => row.number > this.#attempted[row.writer]!);
    assert.deepEqual(invented, [], "no row is there that nobody wrote");
  }
}
