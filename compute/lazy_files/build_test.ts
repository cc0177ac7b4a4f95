import { ok } from "node:assert/strict";
import { checkPrebuilt, NATIVE, prebuiltLibrary } from "./build.ts";

Deno.test({
  name: "the prebuilt library is what its sources give",
  ignore: Deno.build.os !== "linux",
  fn() {
    const result = checkPrebuilt(NATIVE);
    if (result === "not compared") console.log("not compared: another compiler, or none");
    ok(result !== "different", `${prebuiltLibrary(NATIVE)} is not current: run build.ts`);
    ok(Deno.statSync(prebuiltLibrary(NATIVE)).size < 40 * 1024);
  },
});
