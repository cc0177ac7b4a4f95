/** What the compute host shows at /metrics; the gauges are filled when they are read. */
import { counter, gauge, histogram } from "../libs/metrics/registry.ts";
import type { ComputeHost } from "./compute_host.ts";

/** Seconds from the request of a start to the answered first query. */
export const startSeconds = histogram(
  "compute_endpoint_start_seconds",
  "Time to start an endpoint, up to its first query",
  [0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30],
);

/** Starts that threw. */
export const failedStarts = counter(
  "compute_endpoint_failed_starts_total",
  "Starts of endpoints that failed",
);

/** Gauges over what runs now. */
export function watchHost(host: ComputeHost): void {
  gauge(
    "compute_endpoints_running",
    "Endpoints with a live Postgres",
    [],
    (made) => made.set(host.totals().running),
  );
  gauge(
    "compute_wal_buffer_bytes",
    "Memory of all WAL buffers",
    [],
    (made) => made.set(host.totals().bufferBytes),
  );
  gauge(
    "compute_wal_uncommitted_bytes",
    "WAL that Postgres has handed over and no quorum has yet",
    [],
    (made) => made.set(host.totals().uncommittedBytes),
  );
  gauge(
    "compute_pageserver_lag_bytes",
    "Committed WAL that the pageserver has not received, of the endpoint where that is most",
    [],
    (made) => made.set(host.totals().lagBytes),
  );
  gauge(
    "compute_endpoints_delayed",
    "Endpoints whose commits wait for the pageserver",
    [],
    (made) => made.set(host.totals().delayed),
  );
}
