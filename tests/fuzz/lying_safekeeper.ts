/**
 * A WAL proposer with two honest safekeepers and one that lies: what is committed is on an honest
 * one's disk, and a term ends only by what a member may honestly say.
 */
import assert from "node:assert/strict";
import { START, withCluster, write } from "../../compute/wal_proposer/safekeepers_fixture.ts";
import type { WalProposer } from "../../compute/wal_proposer/driver.ts";
import { TestWal } from "../../safekeeper/safekeeper_fixture.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import type { SeededRandom } from "../load/random.ts";
import { absurd, LyingProxy } from "./lying_proxy.ts";

/** Where terms and positions are: greeting, vote, append. */
const NUMBERS: Readonly<Record<number, readonly number[]>> = {
  0x67: [1, 21],
  0x76: [5, 14, 22, 34],
  0x61: [5, 13, 21, 37, 45],
};
const GENERATION_AT = 9;
const GREETING = 0x67;
const WAIT_MS = 8000;
const LIES_SHARE = 0.3;
const LIAR = 3;
const ABSENT = 2;
const ABSENT_MS = 150;
/** What an honest member may say as well: somebody else was elected; a vote is refused. */
const MAY_END = /safekeeper 3 has seen term|safekeeper 3 refused its vote|is away has the WAL/;

function distort(payload: Uint8Array, random: SeededRandom): Uint8Array {
  const changed = absurd(payload, NUMBERS[payload[0]!] ?? [0], random);
  // Members are taken on the word of any of them: that is not what is tried here
  if (payload[0] === GREETING && changed.length >= payload.length) {
    changed.set(payload.subarray(GENERATION_AT, GENERATION_AT + 12), GENERATION_AT);
  }
  return changed;
}

type Cluster = Parameters<Parameters<typeof withCluster>[0]>[0];

async function honestEnd(cluster: Cluster): Promise<Lsn> {
  const ends = await Promise.all([1, 2].map((id) => cluster.flushLsn(id)));
  return Math.max(...ends.map((end) => parseLsn(end))) as Lsn;
}

/**
 * One term: its WAL is committed, or it ends as it may. True if it did not end. Where the liar
 * `isNeeded`, an honest one is away for the first moments.
 */
async function term(
  cluster: Cluster,
  liarPort: number,
  wal: TestWal,
  isNeeded: boolean,
): Promise<boolean> {
  if (isNeeded) await cluster.stop(ABSENT);
  const deposed = Promise.withResolvers<string>();
  const proposer: WalProposer = cluster.propose({
    safekeepers: cluster.safekeepers.map((one) =>
      one.id === LIAR ? { ...one, pgPort: liarPort } : one
    ),
    onDeposed: deposed.resolve,
  });
  try {
    if (isNeeded) {
      await Promise.race([
        proposer.elected(ABSENT_MS).catch(() => {}),
        deposed.promise,
      ]);
      await cluster.start(ABSENT);
    }
    const ended = deposed.promise.then((why) => {
      assert.match(why, MAY_END);
      return false;
    });
    const works = async () => {
      const { startLsn } = await proposer.elected(WAIT_MS);
      if (startLsn !== wal.end) {
        assert.ok(startLsn > await honestEnd(cluster), "only the liar says so");
        return false;
      }
      write(proposer, wal.append(4, 3000));
      await proposer.committed(wal.end, WAIT_MS);
      return true;
    };
    const work = works();
    work.catch(() => {}); // the end of a deposed term is seen by the other one
    const goesOn = await Promise.race([work, ended]);
    const end = await honestEnd(cluster);
    assert.ok(proposer.commitLsn <= end, `${formatLsn(proposer.commitLsn)} is nowhere`);
    return goesOn;
  } finally {
    await proposer.stop();
  }
}

/** Runs so many timelines of up to three terms each. */
export async function fuzzLyingSafekeeper(random: SeededRandom, cases: number): Promise<void> {
  let lies = 0, terms = 0;
  for (let done = 0; done < cases; done++) {
    await withCluster(async (cluster) => {
      const { pgPort } = cluster.safekeepers[LIAR - 1]!;
      await using liar = new LyingProxy(pgPort, random, LIES_SHARE, distort);
      const wal = new TestWal(START);
      while (terms < 3 * (done + 1) && await term(cluster, liar.port, wal, random.next() < 0.5)) {
        terms++;
      }
      lies += liar.lies;
    });
  }
  assert.ok(cases < 10 || (lies > cases && terms > cases), `${lies} lies, ${terms} terms`);
}
