/**
 * What a compute host must remember of a running endpoint, so that after its own crash it can take
 * the Postgres over, or knows that it may not: the file `state` in the endpoint's directory, sealed
 * JSON. It is the host's alone: the endpoint's token is in it.
 *
 * It is written durably before the first append of a term (then without a process), or before a
 * Postgres that only reads is launched, and again when Postgres runs, and removed when the endpoint
 * stops.
 */
import {
  readSealedFile,
  type SealedFormat,
  writeSealedFile,
  writeSealedFileInBackground,
} from "../libs/utils/sealed_file.ts";
import { removeFile } from "../libs/utils/durable.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { TermHistory } from "../libs/safekeeper_protocol/term_history.ts";
import type { EndpointSpec } from "./client.ts";
import type { ProcessIdentity } from "./postgres_process.ts";

const FORMAT: SealedFormat = { magic: "NCES", version: 1, what: "endpoint state file" };
const FILE_MODE = 0o600;

/** Of any endpoint. */
interface CommonState {
  readonly spec: EndpointSpec;
  /** Where Postgres was started; the term of a primary begins there. */
  readonly startLsn: Lsn;
  readonly standbyName: string;
  readonly bootId: string;
  /** Undefined until Postgres was launched. */
  readonly process?: ProcessIdentity;
}

/** Of a primary: also the term that it streams under. */
export interface PrimaryState extends CommonState {
  readonly term: number;
  readonly history: TermHistory;
}

/** Of a replica or a static endpoint. */
export interface ReadOnlyState extends CommonState {
  readonly term?: undefined;
}

/** See the head of the file. */
export type EndpointState = PrimaryState | ReadOnlyState;

/** The state as JSON: LSNs are text. */
type StateJson = Omit<CommonState, "startLsn"> & {
  readonly startLsn: string;
  readonly term?: number;
  readonly history?: readonly { readonly term: number; readonly lsn: string }[];
};

/** Writes the file durably. */
export function writeEndpointState(path: string, state: EndpointState): void {
  writeSealedFile(path, FORMAT, encode(state), FILE_MODE);
}

/** The same, without holding anybody up. Nobody else may write it meanwhile. */
export function writeFirstEndpointState(path: string, state: EndpointState): Promise<void> {
  return writeSealedFileInBackground(path, FORMAT, encode(state), FILE_MODE);
}

function encode(state: EndpointState): Uint8Array {
  const common = { ...state, startLsn: formatLsn(state.startLsn) };
  const json = state.term === undefined ? common : {
    ...common,
    history: state.history.map(({ term, lsn }) => ({ term, lsn: formatLsn(lsn) })),
  };
  return new TextEncoder().encode(JSON.stringify(json));
}

/** Reads the file; undefined if there is none. Throws Corrupt. */
export function readEndpointState(path: string): EndpointState | undefined {
  const file = ifThere(() => readSealedFile(path, FORMAT));
  if (file === undefined) return undefined;
  const json = JSON.parse(new TextDecoder().decode(file.body)) as StateJson;
  const { term, history, ...rest } = json;
  const common = { ...rest, startLsn: parseLsn(json.startLsn) };
  if (term === undefined || history === undefined) return common;
  return {
    ...common,
    term,
    history: history.map(({ term, lsn }) => ({ term, lsn: parseLsn(lsn) })),
  };
}

/** Removes the file durably. */
export function removeEndpointState(path: string): void {
  removeFile(path);
}
