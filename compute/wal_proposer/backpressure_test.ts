import assert from "node:assert/strict";
import fc from "fast-check";
import type { PageserverFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { lagLimits } from "../lag_limits.ts";
import { acknowledgeable, Backpressure } from "./backpressure.ts";

const NONE = { write: Infinity, flush: Infinity, apply: Infinity };

function feedback(received: number, disk = 0, remote = 0): PageserverFeedback {
  return {
    currentTimelineSize: 0,
    lastReceivedLsn: received as Lsn,
    diskConsistentLsn: disk as Lsn,
    remoteConsistentLsn: remote as Lsn,
    replyTime: 0,
    shardNumber: 0,
    corruptionDetected: false,
  };
}

Deno.test("acknowledgeable() is the tightest of the limits", () => {
  const progress = {
    received: 1000 as Lsn,
    diskConsistent: 600 as Lsn,
    remoteConsistent: 200 as Lsn,
  };
  const at = (limits: Partial<typeof NONE>) =>
    acknowledgeable(5000 as Lsn, progress, { ...NONE, ...limits });
  assert.equal(at({}), 5000);
  assert.equal(at({ write: 80 }), 1080);
  assert.equal(at({ write: 80, flush: 400 }), 1000);
  assert.equal(at({ write: 80, flush: 400, apply: 80 }), 280);
  assert.equal(at({ write: 8000, flush: 8000, apply: 8000 }), 5000);
});

Deno.test("Backpressure holds commits back until the pageserver reports", () => {
  const pressure = new Backpressure({ ...NONE, write: 800 }, 1000 as Lsn, 1000 as Lsn);
  assert.equal(pressure.release(1600 as Lsn), 1600, "the base backup was made at 1000");
  assert.equal(pressure.lag(1600 as Lsn).commits_delayed, false);
  assert.equal(pressure.release(4000 as Lsn), 1800);
  const waiting = pressure.lag(4000 as Lsn);
  assert.deepEqual([waiting.write_bytes, waiting.has_reported], [3000, false]);
  assert.equal(waiting.commits_delayed, true);
  pressure.note(feedback(2000));
  assert.equal(pressure.release(4000 as Lsn), 2800);
  pressure.note(feedback(1500));
  assert.equal(pressure.release(4000 as Lsn), 2800, "an old report changes nothing");
  pressure.note(feedback(3960));
  assert.equal(pressure.release(4000 as Lsn), 4000);
  const caughtUp = pressure.lag(4000 as Lsn);
  assert.deepEqual([caughtUp.write_bytes, caughtUp.has_reported], [40, true]);
  assert.equal(caughtUp.commits_delayed, false);
});

Deno.test("Backpressure of a stream that goes on does not take back what Postgres was told", () => {
  const pressure = new Backpressure({ ...NONE, write: 800 }, 1000 as Lsn, 9000 as Lsn);
  assert.equal(pressure.release(0 as Lsn), 9000, "no quorum has answered yet");
  assert.equal(pressure.release(9600 as Lsn), 9000);
  pressure.note(feedback(8880));
  assert.equal(pressure.release(9600 as Lsn), 9600);
});

Deno.test("Backpressure that is lifted waits for nobody", () => {
  const pressure = new Backpressure({ ...NONE, flush: 8 }, 1000 as Lsn, 1000 as Lsn);
  assert.equal(pressure.release(5000 as Lsn), 1008);
  pressure.lift();
  assert.equal(pressure.release(5000 as Lsn), 5000);
});

Deno.test("Backpressure never falls, keeps its limits, and ends when the pageserver is near", () => {
  const lsn = fc.nat({ max: 10_000 });
  const step = fc.record({ commit: lsn, received: lsn, disk: lsn, remote: lsn });
  fc.assert(fc.property(
    fc.record({ write: fc.nat(2000), flush: fc.nat(2000), apply: fc.nat(2000) }),
    fc.array(step, { maxLength: 30 }),
    (limits, steps) => {
      const pressure = new Backpressure(limits, 0 as Lsn, 0 as Lsn);
      let [commit, released, received, disk, remote] = [0, 0, 0, 0, 0];
      for (const next of steps) {
        commit = Math.max(commit, next.commit);
        received = Math.max(received, next.received);
        disk = Math.max(disk, next.disk);
        remote = Math.max(remote, next.remote);
        pressure.note(feedback(next.received, next.disk, next.remote));
        const now = pressure.release(commit as Lsn);
        assert.ok(now >= released && now <= commit);
        assert.ok(now <= received + limits.write);
        assert.ok(now <= disk + limits.flush && now <= remote + limits.apply);
        const isNear = commit - received <= limits.write && commit - disk <= limits.flush &&
          commit - remote <= limits.apply;
        assert.equal(pressure.lag(commit as Lsn).commits_delayed, !isNear);
        released = now;
      }
    },
  ));
});

Deno.test("lagLimits() reads sizes as PostgreSQL writes them", () => {
  const [MB, GB] = [2 ** 20, 2 ** 30];
  assert.deepEqual(lagLimits(), { write: 500 * MB, flush: 10 * GB, apply: Infinity });
  assert.deepEqual(
    lagLimits({
      work_mem: "4MB",
      "neon.max_replication_write_lag": "64kB",
      "neon.max_replication_flush_lag": "-1",
      "neon.max_replication_apply_lag": "15",
    }),
    { write: 65_536, flush: Infinity, apply: 15 * MB },
  );
  assert.equal(lagLimits({ "neon.max_replication_write_lag": "1001B" }).write, 1008);
  for (const text of ["", "0", "-2", "lots", "1.5GB", "5mb", "999999999TB"]) {
    assert.throws(
      () => lagLimits({ "neon.max_replication_write_lag": text }),
      /Cannot use neon.max_replication_write_lag = ".*": give a size such as 500MB/,
    );
  }
});
