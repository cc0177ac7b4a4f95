/**
 * Money that is moved while safekeepers and computes die, hang and are cut off. Ten tellers make
 * transfers through one endpoint and keep notes outside the database. Checked all along: the sum of
 * all balances, and that each follows from the transfers that are there. Checked after every crash:
 * each acknowledged transfer is there, none that failed is, and one of unknown outcome stays what
 * it was found to be. With a majority up every teller gets on within a bounded time; with two of
 * three safekeepers down nothing commits, from that moment on.
 *
 * One round of each fault, then others at random: about a minute in all in a normal run.
 * NEON_TRANSFERS_SECONDS sets how long those take (600 in `deno task test:soak`); NEON_TEST_SEED
 * repeats the faults of a run.
 */
import assert from "node:assert/strict";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { type SeededRandom, seededRandom } from "./load/random.ts";
import { until } from "./support/waiting.ts";
import { audit, connectTo, createBank, transferIds } from "./transfers/bank.ts";
import {
  COMPUTE_CRASHES,
  type ComputeCrash,
  Nemesis,
  SAFEKEEPER_FAULTS,
  type SafekeeperFault,
} from "./transfers/nemesis.ts";
import { Tellers } from "./transfers/tellers.ts";

const TELLERS = 10;
const SAFEKEEPERS = [1, 2, 3];
const SOAK_SECONDS = Number(Deno.env.get("NEON_TRANSFERS_SECONDS") ?? 40);
/** By then every teller must have got on, from when a majority is up. */
const PROGRESS_MS_MAX = 20_000;
/** Pause between two audits, and before one is tried again where there is no endpoint. */
const AUDIT_PAUSE_MS = 250;

/** What goes wrong in a round. */
interface Round {
  readonly first: SafekeeperFault;
  /** While one safekeeper is away. */
  readonly crash: ComputeCrash;
  /** Of another safekeeper, at the same time: then nothing commits for `standstillMs`. */
  readonly second: SafekeeperFault | undefined;
  readonly standstillMs: number;
  /** Without a majority, too, the compute is killed. */
  readonly crashInStandstill: ComputeCrash | undefined;
}

/** The short run: each fault once as the first and once as the second one, each crash thrice. */
function shortRun(random: SeededRandom): Round[] {
  const seconds = SAFEKEEPER_FAULTS.toReversed();
  return SAFEKEEPER_FAULTS.map((first, i) => ({
    first,
    crash: COMPUTE_CRASHES[i % COMPUTE_CRASHES.length]!,
    second: seconds[i],
    standstillMs: random.between(200, 800),
    crashInStandstill: i % 2 === 1 ? COMPUTE_CRASHES[(i - 1) / 2] : undefined,
  }));
}

function randomRound(random: SeededRandom): Round {
  return {
    first: random.pick(SAFEKEEPER_FAULTS),
    crash: random.pick(COMPUTE_CRASHES),
    second: random.next() < 0.6 ? random.pick(SAFEKEEPER_FAULTS) : undefined,
    // At times longer than a proposer waits for a silent safekeeper
    standstillMs: random.next() < 0.1 ? 12_000 : random.between(100, 3000),
    crashInStandstill: random.next() < 0.3 ? random.pick(COMPUTE_CRASHES) : undefined,
  };
}

/** A test under way. */
class Run {
  audits = 0;
  compared = 0;
  rounds = 0;
  standstills = 0;
  readonly #nemesis: Nemesis;
  readonly #tellers: Tellers;
  readonly #random: SeededRandom;
  readonly #port: number;

  constructor(nemesis: Nemesis, tellers: Tellers, random: SeededRandom, port: number) {
    this.#nemesis = nemesis;
    this.#tellers = tellers;
    this.#random = random;
    this.#port = port;
  }

  /** Audits again and again until `signal` aborts; a connection that breaks is made again. */
  async auditAlways(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const client = await connectTo(this.#port, signal);
        try {
          while (!signal.aborted) {
            await this.#audit(client);
            await new Promise((resolve) => setTimeout(resolve, AUDIT_PAUSE_MS));
          }
        } finally {
          client.close();
        }
      } catch (thrown) {
        if (thrown instanceof assert.AssertionError) throw thrown;
        await new Promise((resolve) => setTimeout(resolve, AUDIT_PAUSE_MS));
      }
    }
  }

  async #audit(client: Parameters<typeof audit>[0]): Promise<void> {
    const acknowledged = this.#tellers.log.count("acknowledged");
    const found = await audit(client);
    assert.ok(found >= acknowledged, `${found} transfers, ${acknowledged} were acknowledged`);
    this.audits++;
  }

  /** Compares every transfer with the tellers' notes. */
  async check(): Promise<void> {
    const client = await connectTo(this.#port);
    try {
      await this.#audit(client);
      this.compared += await this.#tellers.log.compare(() => transferIds(client));
    } finally {
      client.close();
    }
  }

  /** One round; at its end all is well. */
  async round(round: Round): Promise<void> {
    this.rounds++;
    const first = this.#random.pick(SAFEKEEPERS);
    await this.#nemesis.afflict(first, round.first);
    await this.#tellers.progress(PROGRESS_MS_MAX);
    await this.#nemesis.crashCompute(round.crash);
    await this.#nemesis.startCompute();
    await this.#tellers.progress(PROGRESS_MS_MAX);
    await this.check();
    if (round.second !== undefined) await this.#withoutMajority(first, round.second, round);
    await this.#nemesis.mendAll();
    await this.#tellers.progress(PROGRESS_MS_MAX);
    await this.check();
  }

  async #withoutMajority(first: number, fault: SafekeeperFault, round: Round): Promise<void> {
    const second = this.#random.pick(SAFEKEEPERS.filter((id) => id !== first));
    this.standstills++;
    await this.#nemesis.afflict(second, fault);
    this.#tellers.standstillBegins();
    await new Promise((resolve) => setTimeout(resolve, round.standstillMs));
    await until("a commit waits", () => this.#tellers.isCommitUnderWay);
    const crash = round.crashInStandstill;
    if (crash !== undefined) await this.#nemesis.crashCompute(crash);
    this.#tellers.standstillEnds();
    // Either of the two alone makes a majority again, with or without what the other one has.
    await this.#nemesis.mend(this.#random.pick([first, second]));
    if (crash !== undefined) await this.#nemesis.startCompute();
    await this.#tellers.progress(PROGRESS_MS_MAX);
  }

  /** Any two of the safekeepers have everything. */
  async everyPair(): Promise<void> {
    for (const away of SAFEKEEPERS) {
      await this.#nemesis.afflict(away, "killed");
      await this.#nemesis.crashCompute("postgres");
      await this.#nemesis.startCompute();
      await this.check();
      await this.#nemesis.mend(away);
    }
  }

  report(): void {
    const { log, slowestMs } = this.#tellers;
    const faults = [...this.#nemesis.counts].map(([what, count]) => `${count} ${what}`).join(", ");
    console.log(
      `${this.rounds} rounds (${faults}; ${this.standstills} times without a majority)\n` +
        `${log.count("acknowledged")} transfers acknowledged, ${log.count("failed")} failed, ` +
        `${log.count("unknown")} of unknown outcome (${log.foundPresent} are there)\n` +
        `${this.audits} audits, ${this.compared} transfers compared; all tellers got on within ` +
        `${(slowestMs / 1000).toFixed(1)} s each time`,
    );
  }
}

async function faults(neon: TestNeon): Promise<void> {
  const random = seededRandom("transfers");
  await using nemesis = await Nemesis.start(neon);
  const port = await nemesis.startCompute();
  await createBank(port);
  const tellers = new Tellers(port, TELLERS, random);
  const run = new Run(nemesis, tellers, random, port);
  const stopping = new AbortController();
  const auditing = run.auditAlways(stopping.signal);
  // Throws as soon as an audit does
  const orAudit = (work: Promise<void>) => Promise.race([work, auditing]);
  tellers.start();
  try {
    await orAudit(tellers.progress(PROGRESS_MS_MAX));
    const begun = performance.now();
    for (const round of shortRun(random)) await orAudit(run.round(round));
    while (performance.now() - begun < SOAK_SECONDS * 1000) {
      await orAudit(run.round(randomRound(random)));
    }
    await tellers.stop();
    await run.everyPair();
    stopping.abort();
    await auditing;
  } finally {
    stopping.abort();
    await nemesis.mendAll();
    await tellers.abandon();
    await auditing.catch(() => {});
    run.report();
  }
}

testWithNeon(
  "transfers stay whole while safekeepers and computes die, hang and are cut off",
  { safekeepers: SAFEKEEPERS.length },
  faults,
);
