/** Metrics of the pageserver; names as in Neon where it has the same thing. */
import { counter, gauge, histogram, hotHistogram } from "../libs/metrics/registry.ts";

/** Requests of computes; from 5 us to 5 s. */
const QUERY_BUCKETS = [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1, 1, 5];

/** By request tag (page_service/protocol.ts). */
const QUERY_KINDS = [
  "get_rel_exists",
  "get_rel_size",
  "get_page_at_lsn",
  "get_db_size",
  "get_slru_segment",
];

/** Of the page service. */
export const pageServiceMetrics = {
  /** Indexed by request tag. */
  query: hotHistogram(
    "pageserver_smgr_query_seconds",
    "Time to answer a page service request, by kind; the mean of those that were answered together",
    QUERY_BUCKETS,
    "smgr_query_type",
    QUERY_KINDS,
  ),
  errors: counter(
    "pageserver_smgr_query_errors_total",
    "Page service requests answered by an error",
  ),
  batchSize: histogram(
    "pageserver_page_service_batch_size",
    "Requests answered by one write",
    [1, 2, 4, 8, 16, 32],
  ),
  waitLsn: histogram(
    "pageserver_wait_lsn_seconds",
    "Time spent waiting for an LSN to arrive",
    [1e-4, 1e-3, 1e-2, 0.1, 1, 10, 60],
  ),
  basebackup: histogram(
    "pageserver_basebackup_query_seconds",
    "Time to make and send a base backup",
    [1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1, 10, 60],
  ),
  commands: counter("pageserver_compute_commands", "Commands of computes, by kind", ["command"]),
};

/** Of WAL ingest. */
export const ingestMetrics = {
  records: counter("pageserver_wal_ingest_records_received", "WAL records ingested"),
  bytes: counter("pageserver_wal_ingest_bytes_received", "Bytes of WAL ingested"),
  connections: gauge("pageserver_wal_receiver_connections", "Open connections to safekeepers"),
};

/** Of moving what was ingested to disk. */
export const flushMetrics = {
  failedSyncs: counter("pageserver_failed_syncs_total", "Syncs of timelines' files that failed"),
  startedOver: counter(
    "pageserver_timelines_started_over_total",
    "Times a timeline went back to what is on disk after a failed sync",
  ),
};

/** Of the management API. */
export const httpMetrics = {
  createBranch: histogram(
    "pageserver_create_branch_seconds",
    "Time to create a branch, with the wait for WAL that is still on its way",
    [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 1, 10],
  ),
};

/** Of layers that are made here (compaction/). */
export const compactionMetrics = {
  passes: histogram(
    "pageserver_image_creation_seconds",
    "Time of a compaction of a timeline, rests included",
    [0.01, 0.1, 1, 10, 100, 1000],
  ),
  failures: counter(
    "pageserver_image_creation_failures_total",
    "Compactions that could not go to their end",
  ),
  layers: counter("pageserver_created_image_layers_total", "Image layers made"),
  pages: counter("pageserver_created_image_pages_total", "Pages in image layers made"),
  bytes: counter("pageserver_created_image_bytes_total", "Bytes of image layers made"),
  pageFailures: counter(
    "pageserver_image_page_failures_total",
    "Pages that got no image because they could not be rebuilt",
  ),
  replacedDeltas: counter(
    "pageserver_replaced_delta_layers_total",
    "Delta layers whose entries were rewritten in key order",
  ),
  rewrittenBytes: counter(
    "pageserver_rewritten_delta_bytes_total",
    "Bytes of delta layers written in key order",
  ),
};
