/**
 * What a compute host must remember of a running endpoint, so that after its own crash it can take
 * the Postgres over, or knows that it may not: the file `state` in the endpoint's directory, sealed
 * JSON.
 *
 * It is written durably before the first append of a term (then without a process) and again when
 * Postgres runs, and removed when the endpoint stops.
 */
import { readSealedFile, type SealedFormat, writeSealedFile } from "../libs/utils/sealed_file.ts";
import { removeFile } from "../libs/utils/durable.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { TermHistory } from "../libs/safekeeper_protocol/term_history.ts";
import type { EndpointSpec } from "./client.ts";
import type { ProcessIdentity } from "./postgres_process.ts";

const FORMAT: SealedFormat = { magic: "NCES", version: 1, what: "endpoint state file" };

/** See the head of the file. */
export interface EndpointState {
  readonly spec: EndpointSpec;
  /** The term that this Postgres streams under. */
  readonly term: number;
  /** Where the term starts, and Postgres. */
  readonly startLsn: Lsn;
  readonly history: TermHistory;
  readonly standbyName: string;
  readonly bootId: string;
  /** Undefined until Postgres was launched. */
  readonly process?: ProcessIdentity;
}

/** The state as JSON: LSNs are text. */
type StateJson = Omit<EndpointState, "startLsn" | "history"> & {
  readonly startLsn: string;
  readonly history: readonly { readonly term: number; readonly lsn: string }[];
};

/** Writes the file durably. */
export function writeEndpointState(path: string, state: EndpointState): void {
  const json: StateJson = {
    ...state,
    startLsn: formatLsn(state.startLsn),
    history: state.history.map(({ term, lsn }) => ({ term, lsn: formatLsn(lsn) })),
  };
  writeSealedFile(path, FORMAT, new TextEncoder().encode(JSON.stringify(json)));
}

/** Reads the file; undefined if there is none. Throws Corrupt. */
export function readEndpointState(path: string): EndpointState | undefined {
  const file = ifThere(() => readSealedFile(path, FORMAT));
  if (file === undefined) return undefined;
  const json = JSON.parse(new TextDecoder().decode(file.body)) as StateJson;
  return {
    ...json,
    startLsn: parseLsn(json.startLsn),
    history: json.history.map(({ term, lsn }) => ({ term, lsn: parseLsn(lsn) })),
  };
}

/** Removes the file durably. */
export function removeEndpointState(path: string): void {
  removeFile(path);
}
