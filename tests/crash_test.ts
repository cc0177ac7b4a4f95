/**
 * kill -9 at seeded moments under a running load: of each daemon, of Postgres, of everything at
 * once. After `start` and `endpoint start` every acknowledged row is there.
 *
 * NEON_CRASH_MOMENTS sets how many moments (8 in a normal run, 50 in `deno task test:soak`);
 * NEON_TEST_SEED repeats a run.
 */
import { allRoles } from "../cli/control_plane/lifecycle.ts";
import { daemonPid } from "../cli/control_plane/supervisor.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { seededRandom } from "./load/random.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { within } from "./support/waiting.ts";

const MOMENTS = Number(Deno.env.get("NEON_CRASH_MOMENTS") ?? 8);
const WRITERS = 4;

const VICTIMS = [
  "pageserver",
  "safekeeper 1",
  "compute",
  "postgres",
  "everything",
  "storage_broker",
] as const;

async function kill(neon: TestNeon, victim: typeof VICTIMS[number]): Promise<void> {
  if (victim === "postgres") return neon.killPostgres("main");
  if (victim !== "everything") return await neon.killRole(victim);
  neon.killPostgres("main");
  await Promise.all(
    allRoles(neon.local.environment())
      .filter((role) => daemonPid(role) !== undefined)
      .map((role) => neon.killRole(role.name)),
  );
}

testWithNeon(
  "every acknowledged row survives kill -9 of each daemon, of Postgres and of everything",
  {},
  async (neon) => {
    const random = seededRandom("crash test");
    const startMain = () => within("a start of main", neon.local.startEndpoint("main"));
    let main = await startMain();
    await within("the first commit", createLedger(neon.connect(main)));
    const writers = new Writers(main.port, WRITERS);
    writers.start();
    try {
      for (let moment = 0; moment < MOMENTS; moment++) {
        // The first moments visit every victim once, the later ones choose.
        const victim = VICTIMS[moment] ?? random.pick(VICTIMS);
        await writers.more(random.between(1, 300));
        await kill(neon, victim);
        await within(`the start after a kill of ${victim}`, neon.local.start());
        main = await startMain();
        await writers.more(1);
        await within("reading the ledger", writers.check(neon.connect(main)));
        console.log(`moment ${moment}: ${victim}, ${writers.acknowledged} rows`);
      }
    } finally {
      await writers.stop();
    }
    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    main = await neon.local.startEndpoint("main");
    await writers.check(neon.connect(main));
  },
);
