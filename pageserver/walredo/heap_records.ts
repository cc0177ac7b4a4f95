/**
 * Opcodes and flags of Heap and Heap2 records (PostgreSQL 17, heapam_xlog.h) that more than one
 * redo file looks at. The opcode is info & 0x70; the bit above it says that the page starts from
 * nothing.
 */

/** Opcodes of the Heap resource manager. */
export const HeapInfo = {
  INSERT: 0x00,
  DELETE: 0x10,
  UPDATE: 0x20,
  TRUNCATE: 0x30,
  HOT_UPDATE: 0x40,
  CONFIRM: 0x50,
  LOCK: 0x60,
  INPLACE: 0x70,
} as const;

/** Opcodes of the Heap2 resource manager; three of them mean something else before version 17. */
export const Heap2Info = {
  REWRITE: 0x00,
  PRUNE: 0x10,
  VACUUM: 0x20,
  FREEZE_PAGE: 0x30,
  PRUNE_ON_ACCESS: 0x10,
  PRUNE_VACUUM_SCAN: 0x20,
  PRUNE_VACUUM_CLEANUP: 0x30,
  VISIBLE: 0x40,
  MULTI_INSERT: 0x50,
  LOCK_UPDATED: 0x60,
  NEW_CID: 0x70,
} as const;

/** The part of info that is the opcode. */
export const HEAP_OPCODE_MASK = 0x70;
/** The bit of info that says: make the page anew before the tuples go in. */
export const HEAP_INIT_PAGE = 0x80;

/**
 * Flag of insert, multi-insert, delete and (for the old page) update: PD_ALL_VISIBLE was cleared.
 */
export const ALL_VISIBLE_CLEARED = 0x01;
/** Flag of update: PD_ALL_VISIBLE of the new page was cleared. */
export const NEW_ALL_VISIBLE_CLEARED = 0x02;
/** Flag of lock and lock_updated: the all-frozen bit was cleared. */
export const LOCK_ALL_FROZEN_CLEARED = 0x01;
