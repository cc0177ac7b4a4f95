import assert from "node:assert/strict";
import type { BranchStatus, NeonStatus } from "./control_plane/status.ts";
import { displayWidth } from "./output.ts";
import { durationText, sizeText, statusLines } from "./status_text.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";

const TENANT = "9ef87a5bf0d92544f6fafeeb3239695c" as TenantId;

const FOOTPRINT = {
  started_at: "2026-01-01T00:00:00.000Z",
  uptime_seconds: 7500,
  memory_bytes: 42e6,
  disk_bytes: 31e6,
  disk_is_complete: true,
};

function branch(id: string, parent: string | null, name: string | null): BranchStatus {
  return {
    branch_name: name,
    timeline_id: id as TimelineId,
    pg_version: 17,
    ancestor_timeline_id: parent,
    ancestor_lsn: parent === null ? null : "0/16F9A00",
    commit_lsn: "0/16FA000",
    received_lsn: "0/16F9A00",
    durable_lsn: "0/16F9A00",
    receive_lag_bytes: 0x600,
    durable_lag_bytes: 0,
    logical_size_bytes: 24e6,
    problem: null,
  };
}

function status(name = "main"): NeonStatus {
  const endpoint = {
    endpoint: name,
    address: "127.0.0.1:55432",
    tenant_id: TENANT,
    timeline_id: "a" as TimelineId,
    branch_name: name,
    pageserver_lag: null,
    stalled_commits: null,
    waits_for: null,
    ...FOOTPRINT,
    log_file: "/x/postgres.log",
  };
  return {
    repo_dir: ".neon",
    daemons: [
      {
        name: "pageserver",
        address: "127.0.0.1:64000",
        addresses: ["127.0.0.1:64000", "127.0.0.1:9898"],
        pid: 123,
        status: "not answering",
        directory: "/x",
        log_file: "/x/pageserver.log",
        ...FOOTPRINT,
      },
    ],
    tenants: [{
      tenant_id: TENANT,
      is_default: true,
      pg_version: 17,
      problem: null,
      branches: [branch("a", null, name), branch("b", "a", null), branch("c", "b", "deep")],
    }],
    endpoints: [
      { ...endpoint, mode: "Primary", lsn: "0/16FA000", status: "running", pid: 5, error: null },
      {
        ...endpoint,
        endpoint: "old",
        mode: { Static: "0/16F9A00" },
        lsn: "0/16F9A00",
        status: "crashed",
        pid: null,
        error: "Cannot start endpoint: its PostgreSQL ended with exit code 1\nand more",
        uptime_seconds: null,
        memory_bytes: null,
      },
    ],
    safekeeper_changes: [],
    refused: null,
    remote_storage: { local_path: "/srv/neon" },
  };
}

Deno.test("statusLines() shows daemons, the tree of branches and endpoints", () => {
  assert.deepEqual(statusLines(status(), Infinity), [
    " DAEMON      ADDRESS               PID  MEMORY  UP         DISK   STATUS",
    " pageserver  127.0.0.1:64000,9898  123  40 MB   2 h 5 min  30 MB  no answer",
    "",
    `tenant ${TENANT} (PostgreSQL 17, the default)`,
    " BRANCH        COMMITTED  RECEIVED        ON DISK  SIZE   ENDPOINTS",
    " main          0/16FA000  all but 1.5 kB  all      23 MB  main, old",
    " ┗━ _no_name_  0/16FA000  all but 1.5 kB  all      23 MB",
    "    ┗━ deep    0/16FA000  all but 1.5 kB  all      23 MB",
    "",
    " ENDPOINT  MODE          ADDRESS          MEMORY  UP         DISK   STATUS",
    " main      Primary       127.0.0.1:55432  40 MB   2 h 5 min  30 MB  running",
    " old       at 0/16F9A00  127.0.0.1:55432  ---     ---        30 MB  crashed",
    " endpoint old crashed: Cannot start endpoint: its PostgreSQL ended with exit code 1; " +
    '"neon endpoint start old" starts it again',
    "",
    "remote storage /srv/neon",
    "",
    "logs: neon logs [-f], or the files *.log below .neon",
  ]);
});

Deno.test("statusLines() says what is under way with safekeepers", () => {
  const changing = {
    ...status(),
    safekeeper_changes: [{ id: 1, change: { replaced_by: 4 } }, {
      id: 5,
      change: "joining" as const,
    }],
  };
  assert.deepEqual(statusLines(changing, Infinity).slice(2, 4), [
    " safekeeper 1 is being replaced by 4: neon safekeeper replace 1",
    " safekeeper 5 is being added: neon safekeeper add",
  ]);
});

Deno.test("statusLines() says why a tenant or a branch is not served", () => {
  const broken = status();
  const [tenant] = broken.tenants;
  tenant!.problem = "Cannot read x: checksum mismatch";
  tenant!.branches[2]!.problem = "Cannot change timeline c: a flush failed";
  const lines = statusLines(broken, Infinity);
  assert.ok(lines.includes(" not served: Cannot read x: checksum mismatch"), lines.join("\n"));
  assert.ok(lines.includes(" deep: Cannot change timeline c: a flush failed"));
});

Deno.test("statusLines() fits the terminal whatever the names are", () => {
  for (
    const name of [
      "main",
      "a_name_that_goes_on_and_on_until_it_has_63_characters_or_so_____",
      "日本".repeat(20),
    ]
  ) {
    for (const width of [80, 100, 132]) {
      for (const line of statusLines(status(name), width)) {
        assert.ok(displayWidth(line) <= width, `${displayWidth(line)} columns: ${line}`);
      }
    }
  }
});

Deno.test("statusLines() counts what does not fit a screen", () => {
  const many = status();
  for (let i = 0; i < 100; i++) many.tenants[0]!.branches.push(branch(`x${i}`, "a", `b${i}`));
  const lines = statusLines(many, 80);
  assert.ok(lines.length < 50);
  assert.ok(lines.includes(" ... and 78 more branches: neon timeline list"));
});

Deno.test("sizeText() and durationText() say one number", () => {
  assert.deepEqual(
    [0, 120, 1536, 31.4 * 2 ** 20, 9.96 * 2 ** 30, 3 * 2 ** 40, null].map((n) => sizeText(n)),
    ["0", "120 B", "1.5 kB", "31 MB", "10 GB", "3.0 TB", "---"],
  );
  assert.equal(sizeText(2 ** 30, false), ">1.0 GB");
  assert.deepEqual(
    [0.4, 59, 60, 3600, 90_000, null].map(durationText),
    ["0 s", "59 s", "1 min", "1 h 0 min", "1 d 1 h", "---"],
  );
});
