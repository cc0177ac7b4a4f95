/**
 * The start of an endpoint of any kind (start_primary.ts, start_read_only.ts): until it answers a
 * query, or everything has been cleaned up again.
 */
import { Conflict, Unavailable } from "../libs/utils/errors.ts";
import { encodeHex } from "../libs/utils/hex.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import type { EndpointSpec, StartTimings } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import type { EndpointRun, HostServices, StartWatch } from "./endpoint_run.ts";
import { PrimaryRun } from "./primary_run.ts";
import { ReadOnlyRun } from "./read_only_run.ts";
import { bringUpPrimary } from "./start_primary.ts";
import { bringUpReadOnly } from "./start_read_only.ts";
import { PhaseClock } from "./start_steps.ts";

/** A started endpoint. */
export interface Started {
  readonly run: EndpointRun;
  readonly timings: StartTimings;
}

/** What is to be started, and where. */
interface StartRequest {
  readonly services: HostServices;
  readonly spec: EndpointSpec;
  readonly directory: EndpointDirectory;
  /** A replica has replayed at least this when its start returns. */
  readonly atLeast: Lsn;
  readonly onFailure: (why: string) => void;
  readonly starting: StartWatch;
}

/** Starts an endpoint. Throws what goes wrong, after everything has been cleaned up again. */
export async function startEndpoint(request: StartRequest): Promise<Started> {
  const { spec } = request;
  const clock = new PhaseClock();
  for (;;) {
    const standbyName = `neon_${encodeHex(crypto.getRandomValues(new Uint8Array(16)))}`;
    const parts = { ...request, standbyName };
    const run = spec.mode === "Primary"
      ? new PrimaryRun(parts, { walSegmentSize: WAL_SEGMENT_SIZE })
      : new ReadOnlyRun(parts);
    try {
      const isFinal = run instanceof PrimaryRun
        ? await bringUpPrimary(run, clock)
        : await bringUpReadOnly(run, clock, request.atLeast);
      if (run.failure !== undefined) throw new Unavailable(run.failure);
      if (isFinal) return { run, timings: clock.timings() };
      await run.stop("fast");
    } catch (thrown) {
      const { failure } = run;
      await run.abandon();
      const isTold = thrown instanceof Unavailable || thrown instanceof Conflict;
      if (failure === undefined || isTold) throw thrown;
      throw new Unavailable(`Cannot start endpoint "${spec.endpoint_id}": ${failure}`);
    }
  }
}
