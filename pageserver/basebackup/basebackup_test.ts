import assert from "node:assert/strict";
import { PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { TarReader } from "../../libs/utils/tar.ts";
import { HEAP, type RecordSpec, VERSION, withCluster } from "../cluster_fixture.ts";
import { Basebackup } from "./basebackup.ts";

/** XLOG_FPI, a record that is nothing but images of pages. */
const XLOG_FPI = 0xb0;
const BLOCKS = 60; // some chunks of a backup

/** A page whose bytes behind the header are all `byte`. */
function filledPage(byte: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE).fill(byte);
  page.fill(0, 0, 24);
  return page;
}

function imageOf(block: number): RecordSpec {
  const image = { bytes: filledPage(block), holeOffset: 0, info: VERSION.imageApply };
  return { rmid: Rmgr.XLOG, info: XLOG_FPI, blocks: [{ id: 0, tag: HEAP, block, image }] };
}

Deno.test("A base backup has whole pages although others read pages while it is sent", () =>
  withCluster(async (cluster) => {
    const lsn = await cluster.ingest(...Array.from({ length: BLOCKS }, (_, n) => imageOf(n)));
    const { served, reader } = cluster;
    const chunks: Uint8Array[] = [];
    const object = cluster.manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, HEAP.fork);
    let other = BLOCKS;
    await new Basebackup({ served, reader, lsn, kind: "full" }).write(async (chunk) => {
      chunks.push(chunk.slice());
      if (other > 0) reader.relationPage(served, HEAP, object, --other, lsn);
      await Promise.resolve();
    });
    const tar = new TarReader((async function* () {
      yield* chunks;
    })());
    for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
      if (entry.name !== `base/${HEAP.db}/${HEAP.rel}`) continue;
      const body = await tar.wholeBody(entry.sizeBytes);
      for (let block = 0; block < BLOCKS; block++) {
        const page = body.subarray(block * PAGE_SIZE + 24, (block + 1) * PAGE_SIZE);
        assert.ok(page.every((byte) => byte === block), `block ${block}`);
      }
      return;
    }
    assert.fail("the relation is not in the backup");
  }));
