/** Who gets which safekeepers, and what a new one gets. */
import assert from "node:assert/strict";
import { defaultConfig } from "./config.ts";
import {
  addSafekeeper,
  forgetSafekeeper,
  lastingSafekeepers,
  sparePorts,
  wantedMembers,
} from "./safekeeper_set.ts";

Deno.test("wantedMembers() replaces, also what is to be replaced itself, removes and adds", () => {
  const config = defaultConfig(6, 17);
  const [one, two, , four, , six] = config.safekeepers;
  one!.replaced_by = 4;
  assert.deepEqual(wantedMembers(config, [1, 2, 3]), [2, 3, 4]);
  assert.deepEqual(wantedMembers(config, [2, 3]), [2, 3]);
  four!.replaced_by = 5;
  assert.deepEqual(wantedMembers(config, [1, 2, 3]), [2, 3, 5]);
  assert.deepEqual(wantedMembers(config, [2, 3, 4]), [2, 3, 5]);
  two!.leaving = true;
  six!.joining = true;
  assert.deepEqual(wantedMembers(config, [1, 2, 3]), [3, 5, 6]);
  assert.deepEqual(lastingSafekeepers(config).map(({ id }) => id), [3, 5, 6]);
});

Deno.test("a new safekeeper has an id that none had, and ports that are set aside", () => {
  const config = defaultConfig(3, 17);
  const before = new Set([...config.safekeepers.map(({ pg_port }) => pg_port)]);
  for (const [port] of sparePorts(config)) before.add(port);
  for (let id = 4; id <= 20; id++) {
    const added = addSafekeeper(config);
    assert.equal(added.id, id);
    assert.ok(before.has(added.pg_port), "the daemons may connect to it");
    forgetSafekeeper(config, { ...config.safekeepers[0]!, replaced_by: id });
    assert.equal(config.safekeepers.length, 3);
  }
  assert.equal(sparePorts(config).length, 3);
  for (let i = 0; i < 3; i++) addSafekeeper(config);
  assert.throws(() => addSafekeeper(config), /no ports are set aside/);
});

Deno.test("sparePorts() of a --port-base are pairs behind those in use", () => {
  assert.deepEqual(sparePorts(defaultConfig(3, 17)), [[5457, 7679], [5458, 7680], [5459, 7681]]);
  const ports = sparePorts(defaultConfig(2, 17, 20_000)).flat();
  assert.equal(new Set(ports).size, 6);
  assert.ok(ports.every((port) => port > 20_023 && port < 20_100));
});
