/**
 * Heap2 REWRITE records: rows of a catalog that VACUUM FULL or CLUSTER moves, for logical decoding
 * (PostgreSQL 17, heapam_xlog.h, xl_heap_rewrite_mapping; rewriteheap.h).
 *
 *   0 u32 mapped xid | 4 u32 database | 8 u32 relation | 16 u64 offset in the file |
 *   24 u32 mappings | 32 u64 start LSN | 40 mappings of 36 bytes
 */
import { Corrupt } from "../../utils/errors.ts";
import { formatLsn } from "../../utils/lsn.ts";
import type { RecordCursor } from "./record_cursor.ts";

/** Opcode of the Heap2 resource manager. */
export const HEAP2_REWRITE = 0x00;

const HEADER_BYTES = 40;
const MAPPING_BYTES = 36;
/** A larger mapping file is damage. */
const OFFSET_MAX = 2 ** 31;

/** What the record says: `mappings` belong at `offset` of the file, which ends behind them. */
interface LogicalRewrite {
  readonly path: string;
  readonly offset: number;
  readonly mappings: Uint8Array;
}

/** Reads the cursor's record. Throws Corrupt. */
export function readLogicalRewrite(cursor: RecordCursor): LogicalRewrite {
  const { view, bytes, mainOffset: at, mainLength, xid } = cursor;
  const count = mainLength < HEADER_BYTES ? -1 : view.getUint32(at + 24, true);
  const offset = count < 0 ? -1 : Number(view.getBigUint64(at + 16, true));
  const isWhole = count >= 0 && HEADER_BYTES + count * MAPPING_BYTES === mainLength;
  if (!isWhole || offset > OFFSET_MAX) {
    throw new Corrupt(
      `Cannot read the rewrite record at ${formatLsn(cursor.lsn)}: its ${mainLength} bytes are ` +
        `not what its fields say`,
    );
  }
  const hex = (offsetInData: number) => view.getUint32(at + offsetInData, true).toString(16);
  const start = `${hex(36).toUpperCase()}_${hex(32).toUpperCase()}`;
  const name = `map-${hex(4)}-${hex(8)}-${start}-${hex(0)}-${xid.toString(16)}`;
  return {
    path: `pg_logical/mappings/${name}`,
    offset,
    mappings: bytes.subarray(at + HEADER_BYTES, at + mainLength),
  };
}
