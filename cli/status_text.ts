/**
 * `neon status` as one screen. Every line fits the width that is given: long names and reasons are
 * cut ("…"), never wrapped, and what does not fit a screen is counted. --json has all of it.
 */
import { describeStorage } from "../libs/remote_storage/location.ts";
import { describeStatus, describeTrouble, type ListedEndpoint } from "./control_plane/endpoints.ts";
import type { BranchStatus, NeonStatus } from "./control_plane/status.ts";
import { cut, fittedTable } from "./output.ts";
import { NO_NAME, treeRows } from "./timeline_tree.ts";

/** Branches of a tenant that are shown; a screen is no place for a thousand. */
export const BRANCHES_MAX = 25;
/** Endpoints that are shown. */
const ENDPOINTS_MAX = 25;

const UNKNOWN = "---";

/** "31 MB", "120 B", "0"; ">31 MB" where more was not counted. */
export function sizeText(bytes: number | null, isComplete = true): string {
  if (bytes === null) return UNKNOWN;
  if (bytes === 0) return "0";
  if (bytes < 1024) return `${Math.round(bytes)} B`;
  const power = Math.min(4, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  const digits = value < 9.95 ? value.toFixed(1) : String(Math.round(value));
  return `${isComplete ? "" : ">"}${digits} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** "45 s", "12 min", "3 h 5 min", "8 d 2 h". */
export function durationText(seconds: number | null): string {
  if (seconds === null) return UNKNOWN;
  const whole = Math.floor(seconds);
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(whole / unit)) as [
    number,
    number,
    number,
  ];
  if (whole < 60) return `${whole} s`;
  if (minutes < 60) return `${minutes} min`;
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

/** How far behind: "all" is there, or what is missing. */
function lagText(lag: number | null): string {
  if (lag === null) return UNKNOWN;
  return lag < 8 ? "all" : `all but ${sizeText(lag)}`;
}

function daemonRows(status: NeonStatus): string[][] {
  return status.daemons.map((daemon) => [
    daemon.name,
    daemon.addresses.map((address, i) => i === 0 ? address : address.replace(/^.*:/, ""))
      .join(","),
    String(daemon.pid ?? UNKNOWN),
    sizeText(daemon.memory_bytes),
    durationText(daemon.uptime_seconds),
    sizeText(daemon.disk_bytes, daemon.disk_is_complete),
    daemon.status === "not answering" ? "no answer" : daemon.status,
  ]);
}

function branchRow(
  drawing: string,
  branch: BranchStatus,
  endpoints: readonly ListedEndpoint[],
): string[] {
  return [
    `${drawing}${branch.branch_name ?? NO_NAME}`,
    branch.commit_lsn ?? branch.received_lsn ?? UNKNOWN,
    lagText(branch.receive_lag_bytes),
    lagText(branch.durable_lag_bytes),
    sizeText(branch.logical_size_bytes),
    endpoints.filter(({ timeline_id }) => timeline_id === branch.timeline_id)
      .map(({ endpoint }) => endpoint).join(", "),
  ];
}

function modeText({ mode }: ListedEndpoint): string {
  return typeof mode === "string" ? mode : `at ${mode.Static}`;
}

function endpointRows(status: NeonStatus): string[][] {
  return status.endpoints.slice(0, ENDPOINTS_MAX).map((endpoint) => [
    endpoint.endpoint,
    modeText(endpoint),
    endpoint.address,
    sizeText(endpoint.memory_bytes),
    durationText(endpoint.uptime_seconds),
    sizeText(endpoint.disk_bytes, endpoint.disk_is_complete),
    describeStatus(endpoint),
  ]);
}

function more(count: number, what: string, command: string): string[] {
  return count <= 0 ? [] : [` ... and ${count} more ${what}: ${command}`];
}

/** What keeps the pageserver from serving a tenant or its branches, a line each. */
function problems({ problem, branches }: NeonStatus["tenants"][number]): string[] {
  const ofBranches = branches.flatMap(({ branch_name, timeline_id, problem }) =>
    problem === null ? [] : [` ${branch_name ?? timeline_id}: ${problem}`]
  );
  return [...(problem === null ? [] : [` not served: ${problem}`]), ...ofBranches];
}

/** What is wrong with endpoints, a line each. */
function troubles(status: NeonStatus): string[] {
  return status.endpoints.flatMap((endpoint) => {
    const trouble = describeTrouble(endpoint);
    return trouble === undefined ? [] : [` ${trouble}`];
  });
}

/** Changes of safekeepers that have not ended, a line each. */
function changes(status: NeonStatus): string[] {
  return status.safekeeper_changes.map(({ id, change }) => {
    if (change === "joining") return ` safekeeper ${id} is being added: neon safekeeper add`;
    if (change === "leaving") {
      return ` safekeeper ${id} is being removed: neon safekeeper remove ${id}`;
    }
    return ` safekeeper ${id} is being replaced by ${change.replaced_by}: ` +
      `neon safekeeper replace ${id}`;
  });
}

/** The screen. `width` is that of the terminal, Infinity where there is none. */
export function statusLines(status: NeonStatus, width: number): string[] {
  const table = (header: string[], rows: string[][], flexible: number[]) =>
    rows.length === 0 ? [] : ["", ...fittedTable(header, rows, flexible, width)];
  const lines = fittedTable(
    ["DAEMON", "ADDRESS", "PID", "MEMORY", "UP", "DISK", "STATUS"],
    daemonRows(status),
    [0],
    width,
  );
  lines.push(...changes(status));
  for (const tenant of status.tenants) {
    const shown = treeRows(tenant.branches).slice(0, BRANCHES_MAX);
    const about = `PostgreSQL ${tenant.pg_version}${tenant.is_default ? ", the default" : ""}`;
    lines.push(
      "",
      `tenant ${tenant.tenant_id} (${about})`,
      ...fittedTable(
        ["BRANCH", "COMMITTED", "RECEIVED", "ON DISK", "SIZE", "ENDPOINTS"],
        shown.map(({ drawing, timeline }) => branchRow(drawing, timeline, status.endpoints)),
        [0, 5],
        width,
      ),
      ...more(tenant.branches.length - shown.length, "branches", "neon timeline list"),
      ...problems(tenant),
    );
  }
  lines.push(
    ...table(
      ["ENDPOINT", "MODE", "ADDRESS", "MEMORY", "UP", "DISK", "STATUS"],
      endpointRows(status),
      [0, 6],
    ),
    ...more(status.endpoints.length - ENDPOINTS_MAX, "endpoints", "neon endpoint list"),
    ...troubles(status),
  );
  if (status.remote_storage !== null) {
    lines.push("", `remote storage ${describeStorage(status.remote_storage)}`);
  }
  lines.push("", `logs: neon logs [-f], or the files *.log below ${status.repo_dir}`);
  return lines.map((line) => cut(line, width));
}
