/**
 * Damaged input at every port: nobody dies, nobody else notices, memory stays bounded, and
 * connections that make no sense are ended. `deno task test:fuzz` does more of the same.
 */
import { seededRandom } from "./load/random.ts";
import { fuzzBroker } from "./fuzz/broker.ts";
import { fuzzCodecs } from "./fuzz/codecs.ts";
import { fuzzComputeApi, fuzzPageserverApi, fuzzSafekeeperApi } from "./fuzz/http_apis.ts";
import { fuzzLazyLibrary } from "./fuzz/lazy_library.ts";
import { fuzzLyingSafekeeper } from "./fuzz/lying_safekeeper.ts";
import { fuzzLyingWalsender } from "./fuzz/lying_walsender.ts";
import { fuzzPageService } from "./fuzz/page_service.ts";
import { fuzzWalService } from "./fuzz/wal_service.ts";

Deno.test("a page service outlives damaged dialogues, and its other clients do not notice", async () => {
  await fuzzPageService(seededRandom("page service"), 120);
});

Deno.test("the lazy file library takes no wrong page and waits for none without end", async () => {
  await fuzzLazyLibrary(seededRandom("lazy library"), 300);
});

Deno.test("a proposer with a lying safekeeper, or a lying walsender, commits nothing that is not there", async () => {
  await fuzzLyingSafekeeper(seededRandom("lying safekeeper"), 6);
  await fuzzLyingWalsender(seededRandom("lying walsender"), 2);
});

Deno.test("a safekeeper outlives damaged dialogues, and its other clients do not notice", async () => {
  await fuzzWalService(seededRandom("WAL service"), 600);
});

Deno.test({
  name: "a broker outlives damaged calls, and its other clients do not notice",
  // grpc-js keeps its DNS and backoff timers beyond close()
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () => fuzzBroker(seededRandom("broker"), 200),
});

Deno.test("the HTTP APIs answer damaged requests, and keep nothing that cannot be read", async () => {
  await fuzzSafekeeperApi(seededRandom("safekeeper API"), 200);
  await fuzzPageserverApi(seededRandom("pageserver API"), 200);
  await fuzzComputeApi(seededRandom("compute API"), 100);
});

Deno.test("decoders refuse damaged messages in their own words", async () => {
  await fuzzCodecs(seededRandom("decoders"), 20_000);
});
