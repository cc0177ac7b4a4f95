import assert from "node:assert/strict";
import { join } from "node:path";
import { PartialDirectory } from "./partial_directory.ts";

Deno.test("a partial directory goes with its maker, at the latest when the next one is made", () => {
  const parent = Deno.makeTempDirSync();
  const names = () => [...Deno.readDirSync(parent)].map(({ name }) => join(parent, name)).sort();
  try {
    const abandoned = join(parent, "making-abandoned");
    Deno.mkdirSync(join(abandoned, "half"), { recursive: true });
    Deno.mkdirSync(join(parent, "whole"));
    {
      using first = new PartialDirectory(parent);
      using second = new PartialDirectory(parent);
      Deno.writeTextFileSync(join(first.path, "file"), "");
      assert.deepEqual(names(), [first.path, second.path, join(parent, "whole")].sort());
      Deno.renameSync(second.path, join(parent, "moved"));
    }
    assert.deepEqual(names(), [join(parent, "moved"), join(parent, "whole")]);
  } finally {
    Deno.removeSync(parent, { recursive: true });
  }
});
