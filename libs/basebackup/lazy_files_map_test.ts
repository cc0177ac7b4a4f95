import { deepEqual, throws } from "node:assert/strict";
import { Corrupt } from "../utils/errors.ts";
import { parseLsn } from "../utils/lsn.ts";
import { decodeLazyFilesMap, encodeLazyFilesMap, type LazyFilesMap } from "./lazy_files_map.ts";

const map: LazyFilesMap = {
  lsn: parseLsn("1/2345678"),
  prevLsn: parseLsn("1/2345600"),
  pgMajor: 17,
  forks: [
    { spc: 1663, db: 5, rel: 1259, fork: 0, blocks: 14 },
    { spc: 1663, db: 5, rel: 16385, fork: 3, blocks: 0 },
    { spc: 1664, db: 0, rel: 4294967295, fork: 2, blocks: 4294967294 },
  ],
};

Deno.test("decodeLazyFilesMap() gives back what was encoded", () => {
  deepEqual(decodeLazyFilesMap(encodeLazyFilesMap(map)), map);
  const empty = { ...map, forks: [] };
  deepEqual(decodeLazyFilesMap(encodeLazyFilesMap(empty)), empty);
});

Deno.test("encodeLazyFilesMap() writes the documented layout", () => {
  const bytes = encodeLazyFilesMap(map);
  deepEqual(bytes.length, 32 + 3 * 20 + 4);
  deepEqual(new TextDecoder().decode(bytes.subarray(0, 4)), "NLZM");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  deepEqual(view.getUint32(8, true), 0x2345678);
  deepEqual(view.getUint32(12, true), 1);
  deepEqual(view.getUint32(32 + 8, true), 1259);
});

Deno.test("decodeLazyFilesMap() refuses bytes that were changed or cut", () => {
  const good = encodeLazyFilesMap(map);
  for (let at = 0; at < good.length; at++) {
    const bad = good.slice();
    bad[at]! ^= 0x40;
    throws(() => decodeLazyFilesMap(bad), Corrupt);
    throws(() => decodeLazyFilesMap(good.subarray(0, at)), Corrupt);
  }
});
