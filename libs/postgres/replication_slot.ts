/**
 * State files of replication slots (PostgreSQL 17, replication/slot.c, ReplicationSlotOnDisk);
 * what is read here lies at the same places in 14 to 18.
 *
 *   0 u32 magic 0x1051CA1 | 4 u32 CRC-32C of the rest | 8 u32 version | 12 u32 bytes behind |
 *   16 name 64 | 80 u32 database | 84 u32 persistency | 88 u32 xmin | 92 u32 catalog xmin |
 *   96 u64 restart LSN | 104 why invalidated, 8 bytes | 112 u64 confirmed flush LSN | ...
 */
import { crc32c } from "../utils/crc32c.ts";
import { type Lsn, lsnFromHalves } from "../utils/lsn.ts";

const MAGIC = 0x1051ca1;
const CHECKED_FROM = 8;
const LENGTH_FROM = 16;
const NAME_BYTES = 64;
const BYTES_MIN = 120;
const PERSISTENT = 0;

/** What its state file says of a slot. */
export interface SlotState {
  readonly name: string;
  /** 0 for a physical slot. */
  readonly database: number;
  /** False for a temporary one, and for one that is being made. */
  readonly isPersistent: boolean;
  readonly catalogXmin: number;
  /** WAL is needed from here on; 0 for none. */
  readonly restartLsn: Lsn;
  /** What the consumer has confirmed; 0 for a physical slot. */
  readonly confirmedLsn: Lsn;
}

/** Reads a state file; undefined if it is not one, whole and unchanged. */
export function readSlotState(bytes: Uint8Array): SlotState | undefined {
  if (bytes.length < BYTES_MIN) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const u32 = (at: number) => view.getUint32(at, true);
  const lsn = (at: number) => lsnFromHalves(u32(at + 4), u32(at));
  const isWhole = u32(0) === MAGIC && u32(12) === bytes.length - LENGTH_FROM &&
    u32(4) === crc32c(bytes.subarray(CHECKED_FROM));
  if (!isWhole) return undefined;
  const name = new TextDecoder().decode(bytes.subarray(LENGTH_FROM, LENGTH_FROM + NAME_BYTES));
  return {
    name: name.slice(0, name.indexOf("\0")),
    database: u32(80),
    isPersistent: u32(84) === PERSISTENT,
    catalogXmin: u32(92),
    restartLsn: lsn(96),
    confirmedLsn: lsn(112),
  };
}
