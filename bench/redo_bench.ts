/**
 * What redo costs: one page from 1, 10, 100 and 1000 heap records (a row updated again and again,
 * with prunings), in microseconds a page and megabytes of WAL a second.
 *
 * Run: deno bench -A bench/redo_bench.ts, or deno run -A bench/redo_bench.ts for one table.
 */
import {
  heapHistory,
  newPage,
  relationKey,
  VERSION,
} from "../pageserver/walredo/record_fixture.ts";
import { reconstructPage } from "../pageserver/walredo/reconstruct.ts";

const page = newPage();
const key = relationKey(0);

for (const records of [1, 10, 100, 1000]) {
  const history = heapHistory(records);
  Deno.bench(`page from ${records} heap records`, () => {
    reconstructPage(history, key, page, VERSION);
  });
}

/** Runs of which the fastest counts: the others say what else the machine did. */
const RUNS = 60;
const RECORDS_PER_RUN = 20_000;

/** Prints the table: the same without the harness. */
function main(): void {
  for (const records of [1, 10, 100, 1000]) {
    const history = heapHistory(records);
    const pages = Math.ceil(RECORDS_PER_RUN / records);
    let us = Infinity;
    for (let run = 0; run < RUNS; run++) {
      const start = performance.now();
      for (let i = 0; i < pages; i++) reconstructPage(history, key, page, VERSION);
      us = Math.min(us, (performance.now() - start) * 1000 / pages);
    }
    const rate = history.length / us;
    console.log(
      `${String(records).padStart(5)} records ${us.toFixed(1).padStart(8)} us a page, ` +
        `${(us * 1000 / records).toFixed(0)} ns a record, ${rate.toFixed(0)} MB/s of records`,
    );
  }
}

if (import.meta.main) main();
