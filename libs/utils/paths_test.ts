import assert from "node:assert/strict";
import { posix } from "node:path";
import { dirname, isAbsolute, join } from "./paths.ts";

const PATHS = ["/", "//", "/a", "/a/", "/a/b", "/a//b//", "a", "a/", "a/b", "a/b/c.json", ".", ""];

Deno.test("paths are taken apart as Node does", () => {
  for (const path of PATHS) {
    if (!path.includes("//")) {
      assert.equal(dirname(path), posix.dirname(path), `dirname of "${path}"`);
    }
    assert.equal(isAbsolute(path), posix.isAbsolute(path), path);
  }
});

Deno.test("join() puts paths together as Node does", () => {
  for (const first of PATHS.filter((path) => path !== "" && path !== ".")) {
    for (const rest of [["x"], ["x", "y/z"], ["", "x"], ["/x"]]) {
      assert.equal(join(first, ...rest), posix.join(first, ...rest), `${first} ${rest}`);
    }
  }
  assert.equal(join("", "x"), posix.join("", "x"));
});
