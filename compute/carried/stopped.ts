/**
 * What exists only when Postgres has ended, and the storage would lose: cumulative statistics, free
 * space maps and the last states of logical slots. The host puts them into the timeline's WAL
 * itself: records of its own behind the shutdown checkpoint, which is certainly the last record
 * that this Postgres wrote, and before the position that the next one starts at. It is one valid
 * history: redo passes over the messages and restores the pages.
 *
 * Only after an orderly end, under the term of this run, and acknowledged by a quorum like all WAL.
 * If anything is in the way, what would have been carried is as it was at the last stop.
 */
import { CARRIED_PREFIX } from "../../libs/basebackup/carried_files.ts";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { type ControlFile, DbState, decodeControlFile } from "../../libs/postgres/control_file.ts";
import { encodeLogicalMessage } from "../../libs/postgres/wal/logical_message.ts";
import { buildRecord, WalWriter } from "../../libs/postgres/wal/record_builder.ts";
import { endOfCheckpointRecord } from "../../libs/postgres/wal/start_checkpoint.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { CONTROL_FILE, LAZY_CONTROL_FILE } from "../lazy_files/lay_out.ts";
import type { WalProposer } from "../wal_proposer/driver.ts";
import { changedFiles, type KnownFiles, presentFiles } from "./files.ts";
import { freeSpaceRecords, type UnlinkedRecord } from "./free_space.ts";

const log = logger("compute", "carried");

/** Longest wait for a quorum to have it. */
const COMMIT_MS_MAX = 5000;

/** What a stop carries, and from where. */
interface StoppedCluster {
  readonly pgdata: string;
  /** Undefined: Postgres ran without lazy files. */
  readonly arena: string | undefined;
  /** What the storage has. */
  readonly known: KnownFiles;
}

/** Appends everything to the WAL and waits for a quorum. Throws what keeps it from that. */
export async function carryStopped(cluster: StoppedCluster, proposer: WalProposer): Promise<void> {
  const { pgdata, arena, known } = cluster;
  const controlFile = arena === undefined ? CONTROL_FILE : LAZY_CONTROL_FILE;
  const control = decodeControlFile(Deno.readFileSync(`${pgdata}/${controlFile}`));
  if (!endsWithCheckpoint(control, proposer)) return;
  const { version, systemId, walSegmentSize: segmentSize } = control;
  const writer = new WalWriter(proposer.endLsn, { version, systemId, segmentSize });
  let previous = control.checkPointLsn;
  const append = (record: UnlinkedRecord) => {
    previous = writer.append(buildRecord({ ...record, previous }));
  };
  for (const { path, content } of changedFiles(known, presentFiles(pgdata, true), true)) {
    const main = encodeLogicalMessage(`${CARRIED_PREFIX}${path}`, content);
    append({ rmid: Rmgr.LOGICALMSG, info: 0, main });
  }
  const filesEnd = writer.end;
  for await (const record of freeSpaceRecords(pgdata, arena, version)) append(record);
  if (writer.end === writer.start) return;
  proposer.append(writer.start, writer.bytes());
  proposer.pump();
  await proposer.committed(writer.end, COMMIT_MS_MAX);
  log.info("{lsn}: kept {files} bytes of statistics and slots, {maps} of free space maps", {
    lsn: formatLsn(writer.end),
    files: filesEnd - writer.start,
    maps: writer.end - filesEnd,
  });
}

/** Whether the WAL ends with this cluster's shutdown checkpoint, as it does when all is well. */
function endsWithCheckpoint(control: ControlFile, proposer: WalProposer): boolean {
  if (control.state !== DbState.SHUT_DOWN) {
    log.info(
      "statistics and free space maps are not kept: PostgreSQL stopped without a checkpoint",
    );
    return false;
  }
  const end = endOfCheckpointRecord(control.checkPointLsn, control.walSegmentSize);
  if (end === proposer.endLsn) return true;
  log.warning("statistics and free space maps are not kept: the WAL ends at {lsn}, not at {end}", {
    lsn: formatLsn(proposer.endLsn),
    end: formatLsn(end),
  });
  return false;
}
