/**
 * The settings of backpressure among an endpoint's settings, under Neon's names:
 *
 *     neon.max_replication_write_lag = 500MB    what the pageserver has not received
 *     neon.max_replication_flush_lag = 10GB     what is not on its disk
 *     neon.max_replication_apply_lag = -1       what safekeepers may not remove yet; -1: no limit
 *
 * Written as PostgreSQL writes sizes; a number without a unit is in MB. They are read when an
 * endpoint is made (to refuse a wrong one) and at its start; Postgres itself only shows them.
 */
import { BadRequest } from "../libs/utils/errors.ts";
import type { LagLimits } from "./wal_proposer/backpressure.ts";

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 2 ** 10,
  MB: 2 ** 20,
  GB: 2 ** 30,
  TB: 2 ** 40,
};
/** LSNs that are acknowledged are multiples of that, as all LSNs. */
const ALIGNMENT_BYTES = 8;

/** Reads the limits. Throws BadRequest naming a setting that is none. */
export function lagLimits(settings: Readonly<Record<string, string>> = {}): LagLimits {
  const read = (kind: keyof LagLimits, otherwise: string) => {
    const name = `neon.max_replication_${kind}_lag`;
    return readLimit(name, settings[name] ?? otherwise);
  };
  return {
    write: read("write", "500MB"),
    flush: read("flush", "10GB"),
    apply: read("apply", "-1"),
  };
}

function readLimit(name: string, text: string): number {
  if (/^\s*-1\s*$/.test(text)) return Infinity;
  const [, digits, unit = "MB"] = /^\s*(\d{1,9})\s*(B|kB|MB|GB|TB)?\s*$/.exec(text) ?? [];
  const bytes = Number(digits) * UNITS[unit]!;
  if (bytes > 0 && Number.isSafeInteger(bytes)) {
    return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  }
  throw new BadRequest(
    `Cannot use ${name} = "${text}": give a size such as 500MB, or -1 for no limit`,
  );
}
