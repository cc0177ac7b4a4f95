/**
 * Which carried files (libs/basebackup/carried_files.ts) a data directory has, and what the storage
 * has to be told of them.
 *
 * Of a slot the state is carried, and the one snapshot that its decoding starts with: PostgreSQL
 * makes the others again from the WAL behind it. Only logical slots that are there to stay are:
 * temporary ones end with their session, and physical ones have no use, because physical
 * replication is refused. Mapping files reach the storage by records of their own, and are only
 * deleted here.
 */
import {
  CARRIED_BYTES_MAX,
  type CarriedKind,
  carriedKind,
  slotPath,
  snapshotPath,
} from "../../libs/basebackup/carried_files.ts";
import { readSlotState, type SlotState } from "../../libs/postgres/replication_slot.ts";
import { crc32c } from "../../libs/utils/crc32c.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { INVALID_LSN } from "../../libs/utils/lsn.ts";

/** What the storage has: CRC-32C of the content by path. */
export type KnownFiles = Map<string, number>;

/** A file of the data directory; content undefined: the storage has it, or is not to. */
export interface PresentFile {
  readonly path: string;
  readonly kind: CarriedKind;
  readonly content: Uint8Array | undefined;
  /** Of a slot's state. */
  readonly slot?: SlotState;
}

/** A file to tell the storage of; without content it is gone. */
export interface ChangedFile {
  readonly path: string;
  readonly content: Uint8Array;
}

const NOTHING = new Uint8Array(0);

/**
 * The files of a data directory, each behind what it needs; statistics only of a Postgres that has
 * ended. A slot for which `staysAs` has a state is left in the storage as that.
 */
export function presentFiles(
  pgdata: string,
  hasEnded: boolean,
  staysAs: (slot: SlotState) => SlotState | undefined = () => undefined,
): PresentFile[] {
  const slots: PresentFile[] = [];
  const snapshots: PresentFile[] = [];
  for (const file of slotFiles(pgdata)) {
    const stays = file.slot === undefined ? undefined : staysAs(file.slot);
    slots.push(stays === undefined ? file : { ...file, content: undefined, slot: stays });
    const restartLsn = (stays ?? file.slot)?.restartLsn ?? INVALID_LSN;
    if (restartLsn === INVALID_LSN) continue;
    const path = snapshotPath(restartLsn);
    const content = ifThere(() => Deno.readFileSync(`${pgdata}/${path}`));
    if (stays !== undefined) snapshots.push({ path, kind: "snapshot", content: undefined });
    else if (content !== undefined) snapshots.push({ path, kind: "snapshot", content });
  }
  return [
    ...(hasEnded ? filesIn(pgdata, "pg_stat", "statistics", true) : []),
    ...snapshots,
    ...filesIn(pgdata, "pg_logical/mappings", "mapping", false),
    ...slots,
  ];
}

function filesIn(
  pgdata: string,
  directory: string,
  kind: CarriedKind,
  withContent: boolean,
): PresentFile[] {
  return namesIn(`${pgdata}/${directory}`).map((name) => `${directory}/${name}`)
    .filter((path) => carriedKind(path) === kind)
    .map((path) => ({
      path,
      kind,
      content: withContent ? ifThere(() => Deno.readFileSync(`${pgdata}/${path}`)) : undefined,
    }));
}

function slotFiles(pgdata: string): PresentFile[] {
  const found: PresentFile[] = [];
  for (const name of namesIn(`${pgdata}/pg_replslot`)) {
    const path = slotPath(name);
    if (carriedKind(path) !== "slot") continue;
    const content = ifThere(() => Deno.readFileSync(`${pgdata}/${path}`));
    const slot = content === undefined ? undefined : readSlotState(content);
    if (slot === undefined) found.push({ path, kind: "slot", content: undefined });
    else if (slot.isPersistent && slot.database !== 0) {
      found.push({ path, kind: "slot", content: content!, slot });
    }
  }
  return found;
}

function namesIn(directory: string): string[] {
  return (ifThere(() => [...Deno.readDirSync(directory)]) ?? []).map(({ name }) => name).sort();
}

/**
 * What the storage has to be told, in order: contents that it does not have, then what is gone.
 * `present` and `hasEnded` as with presentFiles. Mapping files are known from now on.
 */
export function changedFiles(
  known: KnownFiles,
  present: readonly PresentFile[],
  hasEnded: boolean,
): ChangedFile[] {
  const changed: ChangedFile[] = [];
  const paths = new Set<string>();
  for (const { path, kind, content } of present) {
    paths.add(path);
    if (kind === "mapping") known.set(path, 0);
    if (content === undefined || content.length === 0) continue;
    if (content.length > CARRIED_BYTES_MAX) continue;
    if (known.get(path) !== crc32c(content)) changed.push({ path, content });
  }
  for (const path of known.keys()) {
    const mayBeGone = hasEnded || carriedKind(path) !== "statistics";
    if (mayBeGone && !paths.has(path)) changed.push({ path, content: NOTHING });
  }
  return changed;
}

/** Notes that the storage has been told. */
export function noteCarried(known: KnownFiles, changed: readonly ChangedFile[]): void {
  for (const { path, content } of changed) {
    if (content.length === 0) known.delete(path);
    else known.set(path, crc32c(content));
  }
}
