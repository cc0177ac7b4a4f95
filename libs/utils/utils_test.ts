import assert from "node:assert/strict";
import fc from "fast-check";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { crc32c, crc32cOf, crc32cPortable } from "./crc32c.ts";
import { makeDirectory, readAt, removeFile, replaceFile } from "./durable.ts";
import { Corrupt } from "./errors.ts";
import { idBytes, newTenantId, parseTimelineId, tenantIdFromBytes } from "./id.ts";
import { alignLsn, formatLsn, parseLsn, toLsn } from "./lsn.ts";
import { describeOsError } from "./os_errors.ts";
import { acquirePidFile, livePid } from "./pid_file.ts";
import { readSealedFile, writeSealedFile } from "./sealed_file.ts";

Deno.test("parseLsn() reads what formatLsn() prints", () => {
  assert.equal(formatLsn(toLsn(0x16b5a50)), "0/16B5A50");
  assert.equal(parseLsn("16/B374D848"), 0x16_b374d848);
  fc.assert(fc.property(fc.maxSafeNat(), (n) => parseLsn(formatLsn(toLsn(n))) === n));
  for (const bad of ["", "0", "0/", "/1", "0/123456789", "x/1", "0/1 "]) {
    assert.throws(() => parseLsn(bad), SyntaxError);
  }
  assert.throws(() => parseLsn("FFFFFFFF/FFFFFFFF"), SyntaxError);
});

Deno.test("alignLsn() rounds up to 8", () => {
  assert.deepEqual([0, 1, 7, 8, 9].map((n) => alignLsn(toLsn(n))), [0, 8, 8, 8, 16]);
});

Deno.test("ids keep their bytes and refuse other text", () => {
  const id = newTenantId();
  assert.equal(tenantIdFromBytes(idBytes(id)), id);
  assert.throws(() => parseTimelineId("../etc"), SyntaxError);
  assert.throws(() => parseTimelineId(id.slice(1)), SyntaxError);
});

Deno.test("crc32c() knows the check value and can be chained", () => {
  assert.equal(crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(400), (bytes, at) => {
    const cut = Math.min(at, bytes.length);
    const chained = crc32cPortable(bytes.subarray(cut), crc32cPortable(bytes.subarray(0, cut)));
    const rest = crc32cOf(bytes, cut, bytes.length - cut, crc32c(bytes.subarray(0, cut)));
    return crc32c(bytes) === crc32cPortable(bytes) && chained === crc32c(bytes) &&
      rest === chained;
  }));
});

Deno.test("ByteReader reads what ByteWriter wrote and throws Corrupt past the end", () => {
  for (const endian of ["little", "big"] as const) {
    const writer = new ByteWriter(endian, 1);
    writer.u8(1).u16(2).u32(3).i32(-4).u64(5n).i64(-6n).lsn(toLsn(2 ** 45 + 1)).cstr("seven");
    const reader = new ByteReader(writer.bytes(), endian, "a test");
    assert.deepEqual([reader.u8(), reader.u16(), reader.u32(), reader.i32()], [1, 2, 3, -4]);
    assert.deepEqual([reader.u64(), reader.i64(), reader.lsn()], [5n, -6n, 2 ** 45 + 1]);
    assert.equal(reader.cstr(), "seven");
    reader.end();
    assert.throws(() => reader.u8(), Corrupt);
  }
});

function withDirectory(use: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    use(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("replaceFile() leaves one file with the new content", () => {
  withDirectory((directory) => {
    makeDirectory(`${directory}/a/b`);
    makeDirectory(`${directory}/a/b`);
    const path = `${directory}/a/b/f`;
    replaceFile(path, new Uint8Array([1, 2, 3]));
    replaceFile(path, new Uint8Array([4, 5]));
    assert.deepEqual([...Deno.readFileSync(path)], [4, 5]);
    assert.deepEqual([...Deno.readDirSync(`${directory}/a/b`)].map((e) => e.name), ["f"]);
    const file = Deno.openSync(path);
    const into = new Uint8Array(4);
    assert.equal(readAt(file, 1, into), 1);
    assert.equal(into[0], 5);
    file.close();
    removeFile(path);
    removeFile(path);
    assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
  });
});

Deno.test("readSealedFile() refuses every single flipped bit, other magics and newer versions", () => {
  withDirectory((directory) => {
    const path = `${directory}/sealed`;
    const format = { magic: "NTST", version: 2, what: "test file" };
    writeSealedFile(path, format, new Uint8Array([9, 8, 7]));
    assert.deepEqual([...readSealedFile(path, format).body], [9, 8, 7]);
    assert.equal(readSealedFile(path, format).version, 2);
    assert.throws(() => readSealedFile(path, { ...format, version: 1 }), /newer than this program/);
    assert.throws(() => readSealedFile(path, { ...format, magic: "NXXX" }), /wrong magic/);
    const good = Deno.readFileSync(path);
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = good.slice();
      bad[bit >> 3]! ^= 1 << (bit & 7);
      Deno.writeFileSync(path, bad);
      assert.throws(() => readSealedFile(path, format), Corrupt);
    }
    Deno.writeFileSync(path, good.subarray(0, 9));
    assert.throws(() => readSealedFile(path, format), Corrupt);
  });
});

Deno.test("livePid() believes the lock, not the number in the file", () => {
  withDirectory((directory) => {
    const path = `${directory}/daemon.pid`;
    assert.equal(livePid(path), undefined);
    Deno.writeTextFileSync(path, `${Deno.pid}\n`);
    assert.equal(livePid(path), undefined);
    {
      using held = acquirePidFile(path);
      assert.equal(livePid(path), Deno.pid);
      assert.throws(() => acquirePidFile(path), new RegExp(`process ${Deno.pid} is running`));
      held.markStopped();
      assert.equal(livePid(path), Deno.pid, "it may still write until it has ended");
    }
    assert.equal(livePid(path), undefined);
    acquirePidFile(path)[Symbol.dispose]();
    assert.equal(Deno.readTextFileSync(path), `${Deno.pid}\n`);
  });
});

Deno.test("describeOsError() says what cannot be done, why, and what helps", () => {
  const of = (message: string) => describeOsError(new Error(message));
  assert.equal(
    of("Read-only file system (os error 30): mkdir '/a/b'"),
    'Cannot make "/a/b": Read-only file system; make it writable, then run it again',
  );
  assert.equal(
    of("No such file or directory (os error 2): rename '/a' -> '/b'"),
    'Cannot rename "/a": No such file or directory',
  );
  assert.match(of("No space left on device (os error 28)")!, /^Cannot go on: No space.*free some/);
  assert.equal(of("Cannot win an election (safekeeper 1: refused (os error 111))"), undefined);
  assert.equal(
    of("Cannot fetch pages (22 MB): No space left on device (os error 28)"),
    "Cannot fetch pages (22 MB): No space left on device; free some space, then run it again",
  );
  assert.equal(describeOsError("x"), undefined);
});
