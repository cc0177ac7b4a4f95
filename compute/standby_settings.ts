/**
 * What a Postgres that only reads is told besides what all are (postgres_settings.ts): again fixed
 * settings, which nothing can override.
 *
 * A standby refuses to start with lower limits than those under which the WAL was written, and
 * stops its replay when the primary raises them above its own (PostgreSQL 17, xlog.c,
 * CheckRequiredParameterValues).
 *
 * It keeps the transactions that are in progress on the primary in an array of 65 places for each
 * server process or prepared transaction that it may have (procarray.c, TOTAL_MAX_CACHED_SUBXIDS).
 * That is as many as the primary's own WAL demands; what a long transaction with many
 * subtransactions has at the start comes on top, and gets room by a higher
 * max_prepared_transactions, up to a limit.
 */
import type { WalParameters } from "../libs/postgres/control_file.ts";
import { BadRequest } from "../libs/utils/errors.ts";
import type { EndpointSpec } from "./client.ts";

/** Places for transactions in progress for each process. */
const PLACES = 65;
/** Most that max_prepared_transactions is raised by; each costs about 1 kB of shared memory. */
const EXTRA_MAX = 1000;
/** PostgreSQL's defaults where the cluster asks for less. */
const MAX_CONNECTIONS = 100;
/** Pause between two attempts to reach a safekeeper. */
const RETRY_MS = 200;
/** A safekeeper says something every second. */
const SILENCE_SECONDS_MAX = 10;

/** What the settings follow from. */
interface StandbySettings {
  readonly spec: EndpointSpec;
  /** The limits under which the WAL was written. */
  readonly parameters: WalParameters;
  /** Transactions and subtransactions in progress at the start. */
  readonly transactions: number;
}

/** Fixed settings, to go behind those of postgres_settings.ts. Throws BadRequest. */
export function standbySettings(settings: StandbySettings): [string, string][] {
  const { spec, parameters } = settings;
  const asked = (name: string) => Number(spec.settings?.[name] ?? 0);
  const atLeast = (name: string, least: number): [string, string] => [
    name,
    String(Math.max(least, asked(name))),
  ];
  const prepared = parameters.maxPreparedTransactions + extraPlaces(settings);
  return [
    ["hot_standby", "on"],
    // That of a replica is in a file: it changes while it runs
    ...(spec.mode === "Replica" ? [] : [["primary_conninfo", ""] as [string, string]]),
    ["primary_slot_name", ""],
    ["restore_command", ""],
    ["recovery_target_timeline", "current"],
    ["wal_retrieve_retry_interval", `${RETRY_MS}ms`],
    ["wal_receiver_timeout", `${SILENCE_SECONDS_MAX}s`],
    ["wal_receiver_status_interval", "1s"],
    atLeast("max_connections", Math.max(parameters.maxConnections, MAX_CONNECTIONS)),
    atLeast("max_worker_processes", parameters.maxWorkerProcesses),
    atLeast("max_wal_senders", parameters.maxWalSenders),
    atLeast("max_locks_per_transaction", parameters.maxLocksPerTransaction),
    atLeast("max_prepared_transactions", prepared),
    // Pages come through ordinary reads; what was only announced would not be fetched
    ...(spec.pg_version >= 15 ? [["recovery_prefetch", "off"] as [string, string]] : []),
  ];
}

function extraPlaces({ spec, transactions }: StandbySettings): number {
  if (transactions <= PLACES) return 0;
  const extra = Math.ceil(transactions / PLACES);
  if (extra <= EXTRA_MAX) return extra;
  throw new BadRequest(
    `Cannot start "${spec.endpoint_id}": ${transactions} transactions and subtransactions are in ` +
      `progress on its timeline, and a replica has room for ${PLACES * EXTRA_MAX}; start it when ` +
      `the largest transaction has ended`,
  );
}

/**
 * primary_conninfo of a replica; libpq takes the first of `safekeepers` that does not refuse. The
 * password for safekeepers, where they want one, is in `passfile`, and in no setting.
 */
export function connectionInfo(
  { endpoint_id, tenant_id, timeline_id }: EndpointSpec,
  safekeepers: EndpointSpec["safekeepers"],
  passfile?: string,
): string {
  return [
    `host=${safekeepers.map(({ host }) => host).join(",")}`,
    `port=${safekeepers.map(({ pg_port }) => pg_port).join(",")}`,
    "user=replica",
    `application_name=${endpoint_id}`,
    `options='-c timeline_id=${timeline_id} -c tenant_id=${tenant_id}'`,
    "sslmode=disable",
    "gssencmode=disable",
    ...(passfile === undefined ? [] : [`passfile='${passfile.replace(/[\\']/g, "\\$&")}'`]),
  ].join(" ");
}
