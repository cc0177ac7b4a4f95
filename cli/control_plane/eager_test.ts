import assert from "node:assert/strict";
import { eagerReason, isSparse } from "./eager.ts";
import { interpreterOf } from "./elf_interpreter.ts";

/** The beginning of a program for 64-bit Linux that asks for this loader. */
function program(loader: string): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const [headers, name] = [64, 400];
  view.setBigUint64(32, BigInt(headers), true); // e_phoff
  view.setUint16(54, 56, true); // e_phentsize
  view.setUint16(56, 2, true); // e_phnum
  view.setUint32(headers, 6, true); // PT_PHDR comes first
  view.setUint32(headers + 56, 3, true); // PT_INTERP
  view.setBigUint64(headers + 56 + 8, BigInt(name), true); // p_offset
  view.setBigUint64(headers + 56 + 32, BigInt(loader.length + 1), true); // p_filesz
  new TextEncoder().encodeInto(loader, bytes.subarray(name));
  return bytes;
}

function inDirectory(test: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync({ prefix: "neon-eager-" });
  try {
    test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("interpreterOf() reads the loader out of a program", () =>
  inDirectory((directory) => {
    const path = `${directory}/postgres`;
    const glibc = interpreterOf("/bin/sh");
    assert.match(glibc ?? "", Deno.build.os === "linux" ? /^\/lib.*\/ld-.*\.so/ : /^$/);
    for (const loader of ["/lib/ld-musl-x86_64.so.1", "/lib64/ld-linux-x86-64.so.2"]) {
      Deno.writeFileSync(path, program(loader));
      assert.equal(interpreterOf(path), loader);
    }
    for (const other of ["", "#!/bin/sh\n", "\x7fELF"]) {
      Deno.writeTextFileSync(path, other);
      assert.equal(interpreterOf(path), undefined);
    }
    assert.equal(interpreterOf(`${directory}/none`), undefined);
  }));

Deno.test("eagerReason() is there where no library or no sparse file works", () =>
  inDirectory((directory) => {
    const postgres = `${directory}/postgres`;
    Deno.writeFileSync(postgres, program("/lib64/ld-linux-x86-64.so.2"));
    const here = { os: "linux", binDir: directory, directory };
    assert.equal(eagerReason(here), undefined);
    assert.match(eagerReason({ ...here, os: "darwin" })!, /no library can be preloaded/);
    Deno.writeFileSync(postgres, program("/lib/ld-musl-aarch64.so.1"));
    assert.match(eagerReason(here)!, /does not work with musl/);
    assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["postgres"]);
  }));

Deno.test("isSparse() compares what a file occupies with its length", () => {
  const size = 1024 * 1024;
  assert.ok(isSparse({ size, blocks: 0 }));
  assert.ok(isSparse({ size, blocks: 8 }), "a block of metadata");
  assert.ok(!isSparse({ size, blocks: size / 512 }));
});
