/**
 * The stream of WAL out of a Postgres whose walsender lies: what comes in its place is taken once,
 * nothing else is, and it is told of nothing that is not committed.
 */
import assert from "node:assert/strict";
import { Acknowledgement } from "../../compute/wal_proposer/acknowledgement.ts";
import { PostgresStream } from "../../compute/wal_proposer/postgres_stream.ts";
import type { WalProposer } from "../../compute/wal_proposer/driver.ts";
import { START, withCluster } from "../../compute/wal_proposer/safekeepers_fixture.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import {
  queueKeepalive,
  readReceiverMessage,
  reserveXlogData,
} from "../../libs/pgwire/replication.ts";
import { servePg } from "../../libs/pgwire/server.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { TestWal } from "../../safekeeper/safekeeper_fixture.ts";
import type { SeededRandom } from "../load/random.ts";
import { anything } from "./mutations.ts";
import { absurd, LyingProxy } from "./lying_proxy.ts";

const CHUNK_BYTES = 3000;
const HEADER_BYTES = 25;
const WAIT_MS = 40_000;
/** A stream on which nothing is acknowledged any more is begun again after so long. */
const PATIENCE_MS = 150;
const LIES_SHARE = 0.15;

/** Faults in the header; what is WAL stays WAL, or is cut. */
function distort(payload: Uint8Array, random: SeededRandom): Uint8Array {
  if (random.next() < 0.3) return payload.subarray(0, random.between(0, HEADER_BYTES - 1));
  if (random.next() < 0.3) return anything(random, 60);
  const changed = absurd(payload.subarray(0, HEADER_BYTES), [1], random);
  const whole = payload.slice();
  whole.set(changed.subarray(0, Math.min(HEADER_BYTES, whole.length)));
  return whole;
}

/** An honest walsender; `told` is called with what it is told is durable. */
function walSender(wal: TestWal, told: (lsn: Lsn) => void) {
  return servePg({
    hostname: "127.0.0.1",
    port: 0,
    onConnection: async (session) => {
      const command = await session.nextQuery();
      if (command === undefined) return;
      const from = parseLsn(/PHYSICAL (\S+)/.exec(command)![1]!);
      const copy = await session.beginCopyBoth(65536);
      const bytes = wal.bytes(from);
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
        const chunk = bytes.subarray(at, at + CHUNK_BYTES);
        const offset = reserveXlogData(copy, (from + at) as Lsn, wal.end, 0n, chunk.length);
        copy.sendBytes.set(chunk, offset);
      }
      queueKeepalive(copy, wal.end, 0n, true);
      await copy.flush();
      let heard = true;
      const patience = setInterval(() => {
        if (!heard) copy.close();
        heard = false;
      }, PATIENCE_MS);
      try {
        for (;;) {
          const reply = await copy.receive();
          if (reply === undefined) return;
          const message = readReceiverMessage(reply);
          if (message.kind !== "status") continue;
          heard = true;
          told(message.flushed);
        }
      } finally {
        clearInterval(patience);
      }
    },
  });
}

async function stream(proposer: WalProposer, random: SeededRandom): Promise<number> {
  const { startLsn } = await proposer.elected(WAIT_MS);
  const wal = new TestWal(startLsn);
  wal.append(20, 4000);
  const server = walSender(wal, (lsn) => {
    assert.ok(lsn <= proposer.acknowledgedLsn, `${formatLsn(lsn)} is told and not committed`);
  });
  await using liar = new LyingProxy(server.port, random, LIES_SHARE, distort);
  const address = { hostname: "127.0.0.1", port: liar.port };
  const limits = { write: Infinity, flush: Infinity, apply: Infinity };
  const stream = new PostgresStream(proposer, new Acknowledgement(proposer, limits), {
    takesWal: true,
    standbyName: "standby",
    slotExists: true,
    catalogXmin: 0,
    connect: (parameters, signal) => PgClient.connect(address, parameters, signal),
  });
  stream.start();
  try {
    await proposer.committed(wal.end, WAIT_MS);
    assert.equal(proposer.endLsn, wal.end);
  } finally {
    await stream.stop();
    await server.close();
  }
  return liar.lies;
}

/** Runs so many streams of 28 messages. */
export async function fuzzLyingWalsender(random: SeededRandom, cases: number): Promise<void> {
  let lies = 0;
  for (let done = 0; done < cases; done++) {
    await withCluster(async (cluster) => {
      const proposer = cluster.propose();
      assert.equal((await proposer.elected(WAIT_MS)).startLsn, START);
      lies += await stream(proposer, random);
      await proposer.stop();
    });
  }
  assert.ok(cases < 10 || lies > cases, `${lies} lies`);
}
