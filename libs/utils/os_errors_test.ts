/** Which messages are those of the operating system. */
import assert from "node:assert/strict";
import { describeOsError } from "./os_errors.ts";

Deno.test("describeOsError() words what Deno throws", () => {
  const describe = (message: string) => describeOsError(new Error(message));
  assert.equal(
    describe("No space left on device (os error 28): write '/a/b'"),
    'Cannot write "/a/b": No space left on device; free some space, then run it again',
  );
  assert.equal(
    describe("No such file or directory (os error 2): rename '/a' -> '/b'"),
    'Cannot rename "/a": No such file or directory',
  );
  assert.equal(describe("Connection refused (os error 111)"), "Cannot go on: Connection refused");
});

Deno.test("describeOsError() leaves a message alone that quotes one", () => {
  const why = "safekeeper 1: Connection refused (os error 111); safekeeper 3: the same";
  assert.equal(describeOsError(new Error(`Cannot win an election (${why})`)), undefined);
  assert.equal(describeOsError(new Error("Cannot reach it: refused (os error 111)")), undefined);
});
