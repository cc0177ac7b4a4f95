/**
 * What Postgres is told: fixed settings on its command line, which nothing can override, and
 * defaults in postgresql.conf, which the user's own file and ALTER SYSTEM can.
 *
 * Fixed is what the storage depends on. Commits are durable in the safekeepers: with the preloaded
 * library they wait for them where WAL is synced, which is therefore on (other syncs do nothing);
 * without it fsync is off, and the only standby that commits wait for is the WAL proposer, under a
 * name that nobody can guess, whose slot must never be invalidated. Full page images are off, so a
 * crash must never be recovered locally: a torn page would be missed (restart_after_crash).
 *
 * Hint bits never reach the storage, so logging them gains nothing: wal_log_hints is off. A cluster
 * with data checksums logs them all the same, but without page images, which full_page_writes=off
 * leaves out: 50 bytes for each page that is changed by nothing else.
 */
import type { EndpointSpec } from "./client.ts";
import { SLOT_NAME } from "./wal_proposer/postgres_stream.ts";

/** Connections for clients, unless set otherwise. */
const MAX_CONNECTIONS = "100";
/** Small: pages that fall out are in the local files, that is in the page cache. */
const SHARED_BUFFERS = "128MB";

/**
 * Where so many other transactions are active, a commit waits for theirs for so long: whatever is
 * synced together costs the safekeepers, and the way to them, once. (Measured with 8 and 32 clients
 * on 2 cores: a tenth less CPU a transaction with 100 us, latencies are lower too.)
 */
const COMMIT_DELAY_US = "100";
const COMMIT_SIBLINGS = "3";

/** The superuser of every cluster. */
export const SUPERUSER = "cloud_admin";

/** What the fixed settings depend on, besides the spec. */
interface PostgresSettings {
  readonly spec: EndpointSpec;
  /** The application name of the WAL proposer, where commits wait for it as a standby. */
  readonly standbyName: string | undefined;
  /** Prepared transactions that the start inherits. */
  readonly preparedTransactions: number;
  /** Logical slots that the start inherits. */
  readonly logicalSlots: number;
  /** This run is only there to disable subscriptions. */
  readonly withoutSubscriptions: boolean;
  /** postgresql.auto.conf of the last run. */
  readonly savedSettings: string;
}

/** Fixed settings, in the order of the command line. */
export function fixedSettings(settings: PostgresSettings): [string, string][] {
  const { spec, standbyName, preparedTransactions, savedSettings } = settings;
  const asked = spec.settings ?? {};
  const { logicalSlots } = settings;
  const saved = /^max_prepared_transactions\s*=\s*'(\d+)'/m.exec(savedSettings)?.[1];
  const wanted = Number(saved ?? asked["max_prepared_transactions"] ?? 0);
  const savedIo = /^io_method\s*=\s*'(\w+)'/m.exec(savedSettings)?.[1];
  return [
    ["listen_addresses", "127.0.0.1"],
    ["port", String(spec.pg_port)],
    // Relative to pgdata, because a socket's path may not be longer than 107 bytes
    ["unix_socket_directories", "../socket"],
    ["unix_socket_permissions", "0700"],
    ["hba_file", "pg_hba.conf"],
    ...(standbyName === undefined
      ? [["fsync", "on"], ["wal_sync_method", "fdatasync"]] as [string, string][]
      : [["fsync", "off"]] as [string, string][]),
    ["full_page_writes", "off"],
    ["synchronous_commit", "on"],
    ["synchronous_standby_names", standbyName ?? ""],
    ["wal_level", isLogical(spec, logicalSlots) ? "logical" : "replica"],
    ["wal_log_hints", "off"],
    ["wal_init_zero", "off"],
    ["wal_recycle", "off"],
    ["archive_mode", "off"],
    ["restart_after_crash", "off"],
    ["max_wal_senders", asked["max_wal_senders"] ?? "10"],
    ["max_replication_slots", slotLimit(asked["max_replication_slots"], logicalSlots)],
    ["max_slot_wal_keep_size", "-1"],
    // Fewer would keep Postgres from starting, so then it cannot be set lower
    ...(preparedTransactions > wanted
      ? [["max_prepared_transactions", String(preparedTransactions)] as [string, string]]
      : []),
    ...(settings.withoutSubscriptions
      ? [["max_logical_replication_workers", "0"] as [string, string]]
      : []),
    ...(spec.pg_version >= 17
      ? [
        ["summarize_wal", "off"],
        // What goes out through failover slots is on a quorum first
        ["synchronized_standby_slots", standbyName === undefined ? "" : SLOT_NAME],
      ] as [string, string][]
      : []),
    ...(spec.pg_version >= 18
      ? [
        ["io_method", ioMethod(savedIo ?? asked["io_method"])],
        ["idle_replication_slot_timeout", "0"],
      ] as [string, string][]
      : []),
  ];
}

/** Whether Postgres runs with wal_level = logical: it was asked for, or there are logical slots. */
export function isLogical(spec: EndpointSpec, logicalSlots: number): boolean {
  return spec.settings?.["wal_level"] === "logical" || logicalSlots > 0;
}

/** With fewer than it has, and the WAL proposer's, Postgres would not start. */
function slotLimit(asked: string | undefined, logicalSlots: number): string {
  return String(Math.max(Number(asked ?? 10), logicalSlots + 1));
}

/**
 * Asynchronous I/O of 18 and later: by workers, PostgreSQL's own default, which the library is
 * loaded into like into every process. io_uring is refused, because its reads pass the library by,
 * and would find holes.
 */
function ioMethod(asked: string | undefined): string {
  return asked === "sync" ? "sync" : "worker";
}

/**
 * The generated postgresql.conf. Autovacuum waits until the first query was answered; `last` goes
 * before everything but ALTER SYSTEM.
 */
export function postgresConf(
  spec: EndpointSpec,
  autovacuum: boolean,
  last: Readonly<Record<string, string>> = {},
): string {
  const settings = (of: Readonly<Record<string, string>>) =>
    Object.entries(of).map(([name, value]) => `${name} = ${quote(value)}`);
  const lines = [
    "# Written at every start. Edit ../postgresql.conf instead, or use ALTER SYSTEM.",
    `max_connections = ${MAX_CONNECTIONS}`,
    `shared_buffers = ${SHARED_BUFFERS}`,
    `commit_delay = ${COMMIT_DELAY_US}`,
    `commit_siblings = ${COMMIT_SIBLINGS}`,
    "timezone = 'UTC'",
    "log_timezone = 'UTC'",
    "datestyle = 'iso, mdy'",
    "default_text_search_config = 'pg_catalog.english'",
    ...settings(spec.settings ?? {}),
    "include_if_exists = '../postgresql.conf'",
    ...(autovacuum ? [] : ["autovacuum = off"]),
    ...settings(last),
  ];
  return lines.join("\n") + "\n";
}

/**
 * Who may connect: anybody on this machine over TCP, as in Neon's local setup; replication of the
 * whole cluster only over the private socket, which is the WAL proposer.
 */
export const HBA_CONF = `# Written at every start.
local  all          all                 trust
local  replication  all                 trust
host   replication  all  127.0.0.1/32   reject
host   all          all  127.0.0.1/32   trust
`;

/** As the scanner of such files reads it, which knows escapes (PostgreSQL 17, GUC_scanstr). */
function quote(value: string): string {
  return `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}
