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

/** Prints the table: the same without the harness. */
function main(): void {
  for (const records of [1, 10, 100, 1000]) {
    const history = heapHistory(records);
    const rounds = Math.ceil(200_000 / records);
    const run = (count: number) => {
      for (let i = 0; i < count; i++) reconstructPage(history, key, page, VERSION);
    };
    run(rounds);
    const start = performance.now();
    run(rounds);
    const us = (performance.now() - start) * 1000 / rounds;
    const rate = history.length / us;
    console.log(
      `${String(records).padStart(5)} records ${us.toFixed(1).padStart(8)} us a page, ` +
        `${(us * 1000 / records).toFixed(0)} ns a record, ${rate.toFixed(0)} MB/s of records`,
    );
  }
}

if (import.meta.main) main();
