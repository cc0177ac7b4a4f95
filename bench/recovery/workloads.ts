/**
 * What the servers of bench/recovery.ts are loaded with, run inside the server so that clients and
 * their round trips cost nothing.
 *
 *   pgbench  its tables and its TPC-B-like transaction
 *   mixed    one table with an index of every access method; inserts, updates, deletes, vacuum
 */

/** A database to make before the base copy, and the statement that every session then repeats. */
export interface Workload {
  readonly name: string;
  readonly prepare: readonly string[];
  /** One piece of the load, a second or so; `session` counts from 0, `round` likewise. */
  readonly step: (session: number, round: number) => readonly string[];
}

/** Accounts of a pgbench scale unit, as in pgbench. */
const ACCOUNTS_PER_SCALE = 100_000;
const PGBENCH_SCALE = 10;
const TRANSACTIONS_PER_STEP = 20_000;

const accounts = PGBENCH_SCALE * ACCOUNTS_PER_SCALE;

/** pgbench's default script. */
const pgbench: Workload = {
  name: "pgbench",
  prepare: [
    "CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, " +
    "filler char(22))",
    "CREATE TABLE pgbench_tellers (tid int NOT NULL, bid int, tbalance int, filler char(84)) " +
    "WITH (fillfactor = 100)",
    "CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84)) " +
    "WITH (fillfactor = 100)",
    "CREATE TABLE pgbench_branches (bid int NOT NULL, bbalance int, filler char(88)) " +
    "WITH (fillfactor = 100)",
    `INSERT INTO pgbench_branches SELECT b, 0, '' FROM generate_series(1, ${PGBENCH_SCALE}) b`,
    "INSERT INTO pgbench_tellers SELECT t, (t - 1) / 10 + 1, 0, '' FROM " +
    `generate_series(1, ${PGBENCH_SCALE * 10}) t`,
    `INSERT INTO pgbench_accounts SELECT a, (a - 1) / ${ACCOUNTS_PER_SCALE} + 1, 0, '' FROM ` +
    `generate_series(1, ${accounts}) a`,
    "ALTER TABLE pgbench_branches ADD PRIMARY KEY (bid)",
    "ALTER TABLE pgbench_tellers ADD PRIMARY KEY (tid)",
    "ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid)",
    "VACUUM ANALYZE",
    `CREATE PROCEDURE tpcb(transactions int) LANGUAGE plpgsql AS $$
     DECLARE aid_ int; tid_ int; bid_ int; delta_ int;
     BEGIN
       FOR i IN 1..transactions LOOP
         aid_ := 1 + floor(random() * ${accounts});
         tid_ := 1 + floor(random() * ${PGBENCH_SCALE * 10});
         bid_ := 1 + floor(random() * ${PGBENCH_SCALE});
         delta_ := floor(random() * 10001) - 5000;
         UPDATE pgbench_accounts SET abalance = abalance + delta_ WHERE aid = aid_;
         UPDATE pgbench_tellers SET tbalance = tbalance + delta_ WHERE tid = tid_;
         UPDATE pgbench_branches SET bbalance = bbalance + delta_ WHERE bid = bid_;
         INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
           VALUES (tid_, bid_, aid_, delta_, CURRENT_TIMESTAMP);
         COMMIT;
       END LOOP;
     END $$`,
  ],
  step: () => [`CALL tpcb(${TRANSACTIONS_PER_STEP})`],
};

const MIXED_ROWS = 100_000;
const ROWS_PER_STEP = 4000;
/** Steps of the first session between two VACUUMs. */
const STEPS_PER_VACUUM = 8;

/** Values of one row; `g` is its number. */
const MIXED_VALUES = "g % 5000, md5(g::text), md5((g * 7)::text), " +
  "ARRAY[g % 100, g % 777, g % 3333, (random() * 10000)::int], " +
  "point(random() * 1000, random() * 1000), " +
  "int4range(g % 10000, g % 10000 + 1 + (random() * 50)::int), " +
  "timestamptz '2026-01-01 00:00+00' + g * interval '1 second', repeat('x', g % 120)";
const MIXED_COLUMNS = "k, h, t, tags, p, r, ts, body";

/** Every access method at work. */
const mixed: Workload = {
  name: "mixed",
  prepare: [
    "CREATE TABLE mixed (id bigserial PRIMARY KEY, k int, h text, t text, tags int[], p point, " +
    "r int4range, ts timestamptz, body text) WITH (fillfactor = 90)",
    `INSERT INTO mixed (${MIXED_COLUMNS}) SELECT ${MIXED_VALUES} FROM ` +
    `generate_series(1, ${MIXED_ROWS}) g`,
    "CREATE INDEX mixed_btree ON mixed (k)",
    "CREATE INDEX mixed_hash ON mixed USING hash (h)",
    "CREATE INDEX mixed_gin ON mixed USING gin (tags)",
    "CREATE INDEX mixed_gist ON mixed USING gist (p)",
    "CREATE INDEX mixed_gist_range ON mixed USING gist (r)",
    "CREATE INDEX mixed_spgist ON mixed USING spgist (t)",
    "CREATE INDEX mixed_spgist_point ON mixed USING spgist (p)",
    "CREATE INDEX mixed_brin ON mixed USING brin (ts) WITH (pages_per_range = 4, autosummarize)",
    "VACUUM ANALYZE",
  ],
  step: (session, round) => {
    const from = MIXED_ROWS + (2 * round + session) * ROWS_PER_STEP;
    const statements = [
      `INSERT INTO mixed (${MIXED_COLUMNS}) SELECT ${MIXED_VALUES} FROM ` +
      `generate_series(${from + 1}, ${from + ROWS_PER_STEP}) g`,
      `UPDATE mixed SET k = k + 1, p = point(random() * 1000, random() * 1000) ` +
      `WHERE id % 97 = ${round % 97} AND id % 2 = ${session}`,
      `UPDATE mixed SET body = body || 'y' WHERE id % 31 = ${round % 31} AND id % 2 = ${session}`,
      `DELETE FROM mixed WHERE id % 53 = ${round % 53} AND id % 2 = ${session}`,
      "SELECT brin_summarize_new_values('mixed_brin')",
    ];
    const isTurn = session === 0 && round % STEPS_PER_VACUUM === STEPS_PER_VACUUM - 1;
    return isTurn ? [...statements, "VACUUM mixed"] : statements;
  },
};

/** All of them. */
export const WORKLOADS: readonly Workload[] = [pgbench, mixed];
