/**
 * Fetches the basebackup of a start LSN and lays out a data directory from it.
 *
 * The archive (`basebackup TENANT TIMELINE LSN --lazy`) holds directories, the small files that
 * Postgres reads before any page, `lazy_files.map`, and last `global/pg_control`. The last two stay
 * in memory: relation files are laid out from the map, and pg_control goes in place only when all
 * other files are there, so that a directory that was left half-made never starts.
 */
import { dirname, join } from "node:path";
import { CARRIED_BYTES_MAX, carriedKind } from "../libs/basebackup/carried_files.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { LAZY_FILES_MAP_NAME } from "../libs/basebackup/lazy_files_map.ts";
import {
  decodeStandbyStart,
  STANDBY_START_NAME,
  type StandbyStart,
} from "../libs/basebackup/standby_start.ts";
import { type ControlFile, decodeControlFile } from "../libs/postgres/control_file.ts";
import { readSlotState, type SlotState } from "../libs/postgres/replication_slot.ts";
import { type SparseSegment, splitIntoSegments } from "../libs/postgres/wal/sparse_segment.ts";
import { startLsnAfter, synthesizeStartWal } from "../libs/postgres/wal/start_checkpoint.ts";
import { crc32c } from "../libs/utils/crc32c.ts";
import { Corrupt, Unavailable } from "../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { writeAll } from "../libs/utils/durable.ts";
import { TarReader } from "../libs/utils/tar.ts";
import type { KnownFiles } from "./carried/files.ts";
import type { EndpointSpec } from "./client.ts";
import { type FileOwner, give } from "./endpoint_directory.ts";
import type { ReadyFiles } from "./ready_files.ts";

/** Largest file that is kept in memory (the map of a cluster with 3 million relation forks). */
const HELD_BYTES_MAX = 64 * 1024 * 1024;

/** What a basebackup says besides the files that were written. */
export interface Basebackup {
  readonly controlBytes: Uint8Array;
  readonly control: ControlFile;
  readonly mapBytes: Uint8Array;
  /** Files under base and global that came as they are, unlogged relations among them. */
  readonly relationFiles: ReadonlySet<string>;
  /** Files in pg_twophase: prepared transactions that the start inherits. */
  readonly preparedTransactions: number;
  /** The carried files, which the storage has. */
  readonly carried: KnownFiles;
  /** The logical slots among them. */
  readonly slots: readonly SlotState[];
}

/** That of a standby: also the WAL that it begins with. */
interface StandbyBasebackup extends Basebackup {
  readonly standby: StandbyStart;
}

/** How files are made. */
export interface FileMaking {
  readonly owner: FileOwner | undefined;
  readonly ready: ReadyFiles;
}

/**
 * Connects ahead of time, so that the request can go out the moment the LSN is known. Throws
 * Unavailable if nobody is there.
 */
export async function connectPageserver(
  spec: EndpointSpec,
  signal?: AbortSignal,
): Promise<PgClient> {
  const { host, port } = spec.pageserver;
  try {
    return await PgClient.connect(
      { hostname: host, port },
      { user: "compute", database: "pageserver", application_name: spec.endpoint_id },
      signal,
      () => spec.storage_auth_token,
    );
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.ConnectionRefused)) throw thrown;
    throw new Unavailable(`Cannot reach the pageserver at ${host}:${port}: connection refused`);
  }
}

/** Our own versions of these are written instead. */
const REPLACED = new Set([
  "postgresql.conf",
  "postgresql.auto.conf",
  "pg_hba.conf",
  LAZY_FILES_MAP_NAME,
  STANDBY_START_NAME,
  "global/pg_control",
]);

/** Streams the archive into `pgdata`. Throws ServerError, Corrupt or Unavailable. */
export async function fetchBasebackup(
  client: PgClient,
  spec: EndpointSpec,
  lsn: Lsn,
  pgdata: string,
  making: FileMaking,
): Promise<Basebackup> {
  const held = new Map<string, Uint8Array>();
  return await fetchFiles(client, spec, formatLsn(lsn), pgdata, making, held);
}

/** The same for a standby: of the newest LSN, which it then follows, or of one where it stays. */
export async function fetchStandbyBasebackup(
  client: PgClient,
  spec: EndpointSpec,
  lsn: Lsn | undefined,
  pgdata: string,
  making: FileMaking,
): Promise<StandbyBasebackup> {
  const held = new Map<string, Uint8Array>();
  const at = `${lsn === undefined ? "latest" : formatLsn(lsn)} --replica`;
  const basebackup = await fetchFiles(client, spec, at, pgdata, making, held);
  return { ...basebackup, standby: decodeStandbyStart(heldFile(held, STANDBY_START_NAME)) };
}

async function fetchFiles(
  client: PgClient,
  spec: EndpointSpec,
  what: string,
  pgdata: string,
  making: FileMaking,
  held: Map<string, Uint8Array>,
): Promise<Basebackup> {
  const command = `basebackup ${spec.tenant_id} ${spec.timeline_id} ${what} --lazy`;
  const tar = new TarReader(client.copyOut(command));
  const relationFiles = new Set<string>();
  const carried: KnownFiles = new Map();
  const slots: SlotState[] = [];
  let preparedTransactions = 0;
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    const name = checkName(entry.name);
    if (REPLACED.has(name)) {
      held.set(name, await tar.wholeBody(HELD_BYTES_MAX));
      continue;
    }
    const path = join(pgdata, name);
    if (entry.type === "directory") {
      makeOwned(path, making.owner);
    } else if (entry.type === "file" && carriedKind(name) !== undefined) {
      const content = await tar.wholeBody(CARRIED_BYTES_MAX);
      writeDataFile(path, content, making);
      carried.set(name, crc32c(content));
      const slot = carriedKind(name) === "slot" ? readSlotState(content) : undefined;
      if (slot !== undefined) slots.push(slot);
    } else if (entry.type === "file") {
      if (name.startsWith("pg_twophase/")) preparedTransactions++;
      if (/^(base|global)\//.test(name)) relationFiles.add(name);
      const file = openNew(path, making);
      try {
        for await (const part of tar.body()) writeAll(file, part);
      } finally {
        file.close();
      }
      give(path, making.owner);
    } else {
      throw new Corrupt(`Cannot use the basebackup: "${name}" is neither file nor directory`);
    }
  }
  const controlBytes = heldFile(held, "global/pg_control");
  return {
    controlBytes,
    control: decodeControlFile(controlBytes),
    mapBytes: heldFile(held, LAZY_FILES_MAP_NAME),
    relationFiles,
    preparedTransactions,
    carried,
    slots,
  };
}

function heldFile(held: ReadonlyMap<string, Uint8Array>, name: string): Uint8Array {
  const bytes = held.get(name);
  if (bytes === undefined) throw new Corrupt(`Cannot use the basebackup: it has no "${name}"`);
  return bytes;
}

/** A relative name without "..", "./" or a trailing slash. Throws Corrupt. */
function checkName(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || parts.includes("..")) {
    throw new Corrupt(`Cannot use the basebackup: it names "${name}"`);
  }
  return parts.join("/");
}

/** Makes a directory (0700) and its missing parents. */
function makeOwned(path: string, owner: FileOwner | undefined): void {
  try {
    Deno.mkdirSync(path, { mode: 0o700 });
  } catch (thrown) {
    if (thrown instanceof Deno.errors.AlreadyExists) return;
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    makeOwned(dirname(path), owner);
    Deno.mkdirSync(path, { mode: 0o700 });
  }
  give(path, owner);
}

const NEW_FILE = { write: true, create: true, truncate: true, mode: 0o600 } as const;

function openNew(path: string, making: FileMaking): Deno.FsFile {
  if (making.ready.take(path)) return Deno.openSync(path, { write: true });
  try {
    return Deno.openSync(path, NEW_FILE);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    makeOwned(dirname(path), making.owner);
    return Deno.openSync(path, NEW_FILE);
  }
}

/** Writes a small new file of the data directory. */
export function writeDataFile(path: string, bytes: Uint8Array, making: FileMaking): void {
  const file = openNew(path, making);
  try {
    writeAll(file, bytes);
  } finally {
    file.close();
  }
  give(path, making.owner);
}

/**
 * Writes the WAL segment(s) in which Postgres finds its synthesized shutdown checkpoint. `x` is the
 * end of the last record of the history, `prev` its start. Throws Corrupt if pg_control is of
 * another position.
 */
export function writeStartWal(
  pgdata: string,
  x: Lsn,
  prev: Lsn,
  control: ControlFile,
  making: FileMaking,
): void {
  const segmentSize = control.walSegmentSize;
  const start = startLsnAfter(x, segmentSize);
  if (control.checkPointLsn !== start) {
    throw new Corrupt(
      `Cannot start at ${formatLsn(x)}: the basebackup is of ${formatLsn(control.checkPointLsn)}`,
    );
  }
  const { checkPoint, systemId, version } = control;
  const segments = synthesizeStartWal({ x, prev, checkPoint, systemId, version, segmentSize });
  writeSegments(pgdata, segments, segmentSize, making);
}

/** Writes the WAL segment(s) with which a standby begins. */
export function writeStandbyWal(
  pgdata: string,
  { start, wal }: StandbyStart,
  { systemId, version, walSegmentSize }: ControlFile,
  making: FileMaking,
): void {
  const identity = { systemId, version, segmentSize: walSegmentSize };
  writeSegments(pgdata, splitIntoSegments(identity, start, wal), walSegmentSize, making);
}

function writeSegments(
  pgdata: string,
  segments: readonly SparseSegment[],
  segmentSize: number,
  making: FileMaking,
): void {
  makeOwned(join(pgdata, "pg_wal"), making.owner);
  for (const segment of segments) {
    const path = join(pgdata, "pg_wal", segment.segmentName);
    const file = openNew(path, making);
    try {
      file.truncateSync(segmentSize);
      for (const piece of segment.pieces) {
        file.seekSync(piece.offset, Deno.SeekMode.Start);
        writeAll(file, piece.bytes);
      }
    } finally {
      file.close();
    }
    give(path, making.owner);
  }
}
