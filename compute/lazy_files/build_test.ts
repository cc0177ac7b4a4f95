import { equal, ok } from "node:assert/strict";
import { ARM64, checkPrebuilt, isCurrent, NATIVE, prebuiltLibrary } from "./build.ts";

/** e_machine of an ELF file (elf.h: EM_X86_64, EM_AARCH64). */
const MACHINE_OFFSET = 18;
const MACHINES = { "linux-x64": 62, "linux-arm64": 183 };

for (const target of NATIVE.platform === ARM64.platform ? [NATIVE] : [NATIVE, ARM64]) {
  Deno.test({
    name: `the prebuilt library for ${target.platform} is what its sources give`,
    ignore: Deno.build.os !== "linux",
    fn() {
      const path = prebuiltLibrary(target);
      const option = target === ARM64 ? " --arm64" : "";
      ok(isCurrent(target), `${path} is not current: run build.ts${option}`);
      const result = checkPrebuilt(target);
      if (result === "not compared") console.log("not compared: another compiler, or none");
      ok(result !== "different", `${path} is not what the compiler gives: run build.ts${option}`);
      const bytes = Deno.readFileSync(path);
      ok(bytes.length < 40 * 1024);
      equal(bytes[MACHINE_OFFSET]! | bytes[MACHINE_OFFSET + 1]! << 8, MACHINES[target.platform]);
    },
  });
}
