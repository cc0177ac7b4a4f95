/** The state of a cluster in which nothing has happened, for tests to start from. */
import type { Lsn } from "../utils/lsn.ts";
import type { CheckPoint } from "./checkpoint.ts";
import { WAL_TIMELINE_ID } from "./constants.ts";
import type { WalParameters } from "./control_file.ts";

const WAL_LEVEL_REPLICA = 1;

/** Its checkpoint. */
export function emptyCheckPoint(): CheckPoint {
  return {
    redo: 0 as Lsn,
    timelineId: WAL_TIMELINE_ID,
    previousTimelineId: WAL_TIMELINE_ID,
    fullPageWrites: false,
    walLevel: WAL_LEVEL_REPLICA,
    nextXid: 3,
    nextOid: 0,
    nextMulti: 1,
    nextMultiOffset: 0,
    oldestXid: 3,
    oldestXidDb: 1,
    oldestMulti: 1,
    oldestMultiDb: 1,
    time: 0,
    oldestCommitTsXid: 0,
    newestCommitTsXid: 0,
    oldestActiveXid: 0,
  };
}

/** PostgreSQL's defaults, with wal_level replica. */
export function defaultWalParameters(): WalParameters {
  return {
    walLevel: WAL_LEVEL_REPLICA,
    walLogHints: false,
    maxConnections: 100,
    maxWorkerProcesses: 8,
    maxWalSenders: 10,
    maxPreparedTransactions: 0,
    maxLocksPerTransaction: 64,
    trackCommitTimestamp: false,
  };
}
