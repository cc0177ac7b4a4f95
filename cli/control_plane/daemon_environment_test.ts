import assert from "node:assert/strict";
import { daemonEnvironment } from "./daemon_environment.ts";

/** Prints how many turns of a busy event loop pass before a byte that has arrived is read. */
const COUNT_TURNS = `
  import { setImmediate } from "node:timers/promises";
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const near = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  const far = await listener.accept();
  let most = 0;
  for (let round = 0; round < 10; round++) {
    let arrived = false;
    far.read(new Uint8Array(1)).then(() => arrived = true);
    for (let i = 0; i < 5; i++) await setImmediate();
    await near.write(new Uint8Array(1));
    let turns = 0;
    for (; !arrived; turns++) await setImmediate();
    most = Math.max(most, turns);
  }
  console.log(most);
  Deno.exit(0);
`;

for (const [work, turnsMax] of [["slices", 8], ["messages", 16]] as const) {
  Deno.test(`a daemon that is busy with ${work} looks at its sockets all the time`, async () => {
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", COUNT_TURNS],
      clearEnv: true,
      env: daemonEnvironment([], work),
    }).output();
    const turns = Number(new TextDecoder().decode(stdout));
    assert.ok(turns >= 1 && turns <= turnsMax, `${turns} turns`);
  });
}

Deno.test("a daemon gets nothing of the user's environment that it has no use for", () => {
  const given = { NEON_AUTH_TOKEN: "secret", GRPC_TRACE: "all", AWS_SESSION_TOKEN: "asked for" };
  for (const [name, value] of Object.entries(given)) Deno.env.set(name, value);
  try {
    const found = daemonEnvironment(["AWS_SESSION_TOKEN"]);
    assert.equal(found["GRPC_TRACE"], "all");
    assert.equal(found["AWS_SESSION_TOKEN"], "asked for");
    const known = /^(HOME|DENO_DIR|XDG_CACHE_HOME|GRPC_.*|NO_COLOR|DENO_TOKIO_EVENT_INTERVAL)$/;
    const others = Object.keys(found).filter((name) => !known.test(name));
    assert.deepEqual(others, ["AWS_SESSION_TOKEN"]);
  } finally {
    for (const name of Object.keys(given)) Deno.env.delete(name);
  }
});
