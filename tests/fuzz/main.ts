/**
 * `deno task test:fuzz`: damaged input at every port, as much as wanted.
 *
 *   deno task test:fuzz --seeds 100    seeds 1 to 100
 *   deno task test:fuzz --seed 4711    that one
 */
import { parseArgs } from "node:util";
import { SeededRandom } from "../load/random.ts";
import { fuzzBroker } from "./broker.ts";
import { fuzzCodecs } from "./codecs.ts";
import { fuzzComputeApi, fuzzPageserverApi, fuzzSafekeeperApi } from "./http_apis.ts";
import { fuzzLazyLibrary } from "./lazy_library.ts";
import { fuzzLyingSafekeeper } from "./lying_safekeeper.ts";
import { fuzzLyingWalsender } from "./lying_walsender.ts";
import { fuzzPageService } from "./page_service.ts";
import { fuzzWalService } from "./wal_service.ts";

const CASES = 500;
const TARGETS = {
  "decoders": fuzzCodecs,
  "page service": fuzzPageService,
  "WAL service": fuzzWalService,
  "lazy library": fuzzLazyLibrary,
  "lying safekeeper": (random: SeededRandom, cases: number) =>
    fuzzLyingSafekeeper(random, cases / 25),
  "lying walsender": (random: SeededRandom, cases: number) =>
    fuzzLyingWalsender(random, cases / 50),
  "broker": fuzzBroker,
  "safekeeper API": fuzzSafekeeperApi,
  "pageserver API": fuzzPageserverApi,
  "compute API": fuzzComputeApi,
};

const { values } = parseArgs({
  args: Deno.args,
  options: { seeds: { type: "string", default: "10" }, seed: { type: "string" } },
});
const first = Number(values.seed ?? 1);
const count = values.seed === undefined ? Number(values.seeds) : 1;
for (let seed = first; seed < first + count; seed++) {
  for (const [name, fuzz] of Object.entries(TARGETS)) {
    try {
      await fuzz(new SeededRandom(seed), CASES);
    } catch (thrown) {
      console.error(`${name}, seed ${seed}:`, thrown);
      Deno.exit(1);
    }
  }
}
console.log(`${count} seeds, ${CASES} cases at each of ${Object.keys(TARGETS).join(", ")}`);
