/**
 * A Postgres that is killed takes no memory of the machine with it: what it had shared is given
 * back when its files are removed, also when the compute host was killed with it.
 */
import assert from "node:assert/strict";
import { ifThere } from "../libs/utils/if_there.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

/** Line of postmaster.pid with the key and the id of the segment (pidfile.h). */
const SHMEM_LINE = 6;

/** What is there of the shared memory that the Postgres of an endpoint has now: asked later. */
function sharedMemoryOf(neon: TestNeon, endpoint: string): () => string[] {
  const pid = neon.postmasterPid(endpoint);
  const pgdata = `${neon.local.directory}/compute/endpoints/${endpoint}/pgdata`;
  const [key] = Deno.readTextFileSync(`${pgdata}/postmaster.pid`).split("\n")[SHMEM_LINE]!
    .trim().split(/\s+/);
  const mapped = Deno.readTextFileSync(`/proc/${pid}/maps`).match(/\/dev\/shm\/PostgreSQL\.\d+/g);
  const files = new Set(mapped);
  assert.ok(key !== undefined && files.size > 0);
  return () => {
    const segments = Deno.readTextFileSync("/proc/sysvipc/shm").split("\n");
    return [
      ...segments.filter((line) => line.trim().startsWith(`${key} `)),
      ...[...files].filter((path) => ifThere(() => Deno.lstatSync(path)) !== undefined),
    ];
  };
}

async function killTwice(neon: TestNeon): Promise<void> {
  await neon.local.startEndpoint("main");
  const first = sharedMemoryOf(neon, "main");
  assert.ok(first().length >= 2);
  Deno.kill(neon.postmasterPid("main"), "SIGKILL");
  await until("the first one's is gone", () => first().length === 0);

  await neon.local.startEndpoint("main");
  const second = sharedMemoryOf(neon, "main");
  neon.signalRole("compute", "SIGSTOP"); // it does not see what becomes of its Postgres
  Deno.kill(neon.postmasterPid("main"), "SIGKILL");
  await neon.killRole("compute");
  assert.ok(second().length >= 2);
  await neon.run("start");
  await until("the second one's is gone", () => second().length === 0);
}

if (Deno.build.os === "linux") {
  testWithNeon("shared memory of a killed Postgres is given back", {}, killTwice);
}
