/**
 * The settings among an endpoint's settings that are for the compute host: those of backpressure,
 * under Neon's names. Others that begin with "neon." are an error.
 *
 *     neon.max_replication_write_lag = 500MB    what the pageserver has not received
 *     neon.max_replication_flush_lag = 10GB     what is not on its disk
 *     neon.max_replication_apply_lag = -1       what safekeepers may not remove yet; -1: no limit
 *
 * Written as PostgreSQL writes sizes; a number without a unit is in MB. They are read when an
 * endpoint is made (to refuse a wrong one), at its start, and when they are changed while it runs;
 * Postgres itself only shows them.
 */
import { BadRequest } from "../libs/utils/errors.ts";
import type { LagLimits } from "./wal_proposer/backpressure.ts";

/** Settings that begin so are not PostgreSQL's. */
const HOST_PREFIX = "neon.";

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 2 ** 10,
  MB: 2 ** 20,
  GB: 2 ** 30,
  TB: 2 ** 40,
};
/** LSNs that are acknowledged are multiples of that, as all LSNs. */
const ALIGNMENT_BYTES = 8;

const DEFAULTS: Readonly<Record<keyof LagLimits, string>> = {
  write: "500MB",
  flush: "10GB",
  apply: "-1",
};

function nameOf(kind: string): string {
  return `${HOST_PREFIX}max_replication_${kind}_lag`;
}

/** Reads the limits. Throws BadRequest naming a setting that is none, or that there is not. */
export function lagLimits(settings: Readonly<Record<string, string>> = {}): LagLimits {
  const known = Object.keys(DEFAULTS).map(nameOf);
  const unknown = Object.keys(settings)
    .find((name) => name.startsWith(HOST_PREFIX) && !known.includes(name));
  if (unknown !== undefined) {
    throw new BadRequest(
      `Cannot set ${unknown}: there is no such setting; there are ${known.join(", ")}`,
    );
  }
  const read = (kind: keyof LagLimits) => {
    const name = nameOf(kind);
    return readLimit(name, settings[name] ?? DEFAULTS[kind]);
  };
  return { write: read("write"), flush: read("flush"), apply: read("apply") };
}

/**
 * All settings of an endpoint after some were changed. Throws BadRequest as lagLimits(), and for
 * those of PostgreSQL itself.
 */
export function changedSettings(
  settings: Readonly<Record<string, string>> | undefined,
  changes: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const other = Object.keys(changes).find((name) => !name.startsWith(HOST_PREFIX));
  if (other !== undefined) {
    throw new BadRequest(
      `Cannot change ${other} here: only settings that begin with "${HOST_PREFIX}"; ` +
        `PostgreSQL's own are changed by ALTER SYSTEM`,
    );
  }
  const changed = { ...settings, ...changes };
  lagLimits(changed);
  return changed;
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
