/**
 * What the repository's hot paths cost: `deno run -A pageserver/repository/repository_bench.ts`.
 *
 * One timeline, imported with 3,000 pages, then a million records of 100 bytes on 100,000 pages;
 * reads from memory and from disk; the longest turn of the event loop during the flush; many small
 * layers.
 */
import { setImmediate } from "node:timers";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { addLsn, toLsn } from "../../libs/utils/lsn.ts";
import { Reconstruction } from "./reconstruction.ts";
import { TenantManager } from "./tenant_manager.ts";

const pause = () => new Promise<void>((resolve) => setImmediate(resolve));
const directory = Deno.makeTempDirSync();
const manager = TenantManager.open(directory, { now: () => performance.now(), pause });
const tenant = await manager.attach(newTenantId(), 1);
const page = crypto.getRandomValues(new Uint8Array(8192));
const record = crypto.getRandomValues(new Uint8Array(100));
const into = new Reconstruction();

function report(what: string, startMs: number, count: number): void {
  const us = (performance.now() - startMs) * 1000 / count;
  console.log(`${what.padEnd(52)} ${us.toFixed(2).padStart(10)} us`);
}

let start = performance.now();
const importer = tenant.importTimeline(newTimelineId(), 17);
for (let i = 0; i < 3000; i++) {
  importer.putImage(manager.interner.relation(1663, 5, i % 300, 0), i, page, 0, page.length);
}
const timeline = await importer.finish(toLsn(0x1500000), toLsn(0x14fff90));
report("import of 24.6 MB, durable", start, 1);

const relation = manager.interner.relation(1663, 5, 1000, 0);
let lsn = timeline.lastRecordLsn;

function ingest(records: number, block: (i: number) => number, init: (i: number) => boolean): void {
  for (let i = 0; i < records; i++) {
    lsn = addLsn(lsn, 104);
    const blob = timeline.beginBlob(record, 0, record.length);
    timeline.putRecord(relation, block(i), lsn, blob, init(i));
    if (i % 100 === 99) timeline.advance(lsn, addLsn(lsn, -104));
  }
  timeline.advance(lsn, addLsn(lsn, -104));
}

function read(what: string, count: number, block: (i: number) => number): void {
  start = performance.now();
  for (let i = 0; i < count; i++) timeline.collect(relation, block(i), lsn, into);
  report(`${what}, ${into.recordCount} records`, start, count);
}

start = performance.now();
ingest(1_000_000, (i) => (i * 7919) % 100_000, () => true);
report("put of a record, with its blob", start, 1_000_000);
start = performance.now();
const blob = timeline.beginBlob(record, 0, record.length);
lsn = addLsn(lsn, 8);
for (let i = 0; i < 300_000; i++) {
  timeline.putRecord(relation, 200_000 + i % 50_000, lsn, blob, true);
}
timeline.advance(lsn, addLsn(lsn, -8));
report("put of one more key of a blob", start, 300_000);
read("collect from memory", 100_000, (i) => (i * 31) % 100_000);
ingest(100, () => 5, (i) => i === 0);
read("collect from memory", 10_000, () => 5);

let longestMs = 0;
let flushing = true;
const watch = (async () => {
  for (let lastMs = performance.now(); flushing;) {
    await pause();
    longestMs = Math.max(longestMs, performance.now() - lastMs);
    lastMs = performance.now();
  }
})();
start = performance.now();
await timeline.flush();
flushing = false;
await watch;
report("flush of 1.3 million entries", start, 1);
report("  longest turn of the event loop in it", performance.now() - longestMs, 1);
read("collect from a layer, first time", 100_000, (i) => (i * 31) % 100_000);
read("collect from a layer", 100_000, (i) => (i * 31) % 100_000);
read("collect from a layer", 10_000, () => 5);
for (let i = 0; i < 50; i++) {
  ingest(200, (n) => n === 0 ? 0 : n === 1 ? 499_999 : 300_000 + n, () => true);
  await timeline.flush();
}
read("collect below 50 layers that miss it", 20_000, (i) => 1 + (i * 31) % 99_000);
console.log(manager.stats());
await manager.shutdown();
Deno.removeSync(directory, { recursive: true });
