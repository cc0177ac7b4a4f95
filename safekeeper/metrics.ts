/** The safekeeper's metrics, all of them, under Neon's `safekeeper_` prefix. */
import { counter, gauge, hotCounter, hotDistribution } from "../libs/metrics/registry.ts";

/** Time from the start of a group sync to its end. */
export const flushSeconds = hotDistribution(
  "safekeeper_flush_wal_seconds",
  "Seconds to make written WAL durable",
  [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1],
);

/** WAL taken from proposers. */
export const receivedBytes = hotCounter(
  "safekeeper_received_wal_bytes_total",
  "Bytes of WAL taken from proposers",
);

/** WAL sent to pageservers, replicas and recovering proposers. */
export const sentBytes = hotCounter(
  "safekeeper_sent_wal_bytes_total",
  "Bytes of WAL sent on replication connections",
);

/** Segments removed because everybody has what is in them. */
export const removedSegments = counter(
  "safekeeper_removed_wal_segments_total",
  "WAL segment files removed",
);

/** Messages of proposers that were refused. */
export const refusedMessages = counter(
  "safekeeper_refused_messages_total",
  "Messages of proposers that were refused with an error",
);

/** Replaced control files. */
export const persistedStates = counter(
  "safekeeper_persisted_control_files_total",
  "Control files written",
);

/** Timelines on this safekeeper. */
export const timelineCount = gauge("safekeeper_timelines", "Timelines on this safekeeper");
export const brokenTimelineCount = gauge(
  "safekeeper_broken_timelines",
  "Timelines on this safekeeper that cannot be served",
);

/** Connections by role: proposer or receiver. */
export const connectionCount = gauge(
  "safekeeper_connections",
  "Connected proposers and WAL receivers",
  ["role"],
);

/** Segments put into remote storage. */
export const uploadedSegments = counter(
  "safekeeper_backed_up_segments_total",
  "WAL segments put into remote storage",
  ["kind"],
);

/** WAL put into remote storage. */
export const uploadedBytes = counter(
  "safekeeper_backed_up_bytes_total",
  "Bytes of WAL put into remote storage",
);

/** Rounds of uploads that ended with an error. */
export const backupFailures = counter(
  "safekeeper_backup_errors_total",
  "Times that putting WAL into remote storage failed, after all attempts",
);

/** Timelines whose WAL went from the disk to remote storage alone, and came back. */
export const offloads = counter(
  "safekeeper_offloads_total",
  "Timelines whose WAL was taken off the disk (off) and put there again (back)",
  ["direction"],
);

/** Timelines without WAL on disk. */
export const offloadedCount = gauge(
  "safekeeper_offloaded_timelines",
  "Timelines whose WAL is in remote storage only",
);

/** Committed WAL in whole segments that remote storage does not have. */
export const backupLagBytes = gauge(
  "safekeeper_backup_lag_bytes",
  "Committed WAL that is not in remote storage yet, of all timelines",
);

/** WAL read from remote storage for receivers. */
export const remoteReadBytes = counter(
  "safekeeper_remote_read_bytes_total",
  "Bytes of WAL sent to receivers out of remote storage",
);
