import assert from "node:assert/strict";
import { tarEnd, tarHeader, tarPadding, TarReader } from "./tar.ts";

async function* chunked(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function readAll(chunks: AsyncIterable<Uint8Array>) {
  const reader = new TarReader(chunks);
  const found: { name: string; type: string; mode: number; text: string; link: string }[] = [];
  for (let entry = await reader.next(); entry; entry = await reader.next()) {
    const text = new TextDecoder().decode(await reader.wholeBody(1000));
    found.push({
      name: entry.name,
      type: entry.type,
      mode: entry.mode,
      text,
      link: entry.linkName,
    });
  }
  return found;
}

function sample(): Uint8Array {
  const body = new TextEncoder().encode("x".repeat(700));
  const parts = [
    tarHeader({ name: "base", type: "directory", mode: 0o700, sizeBytes: 0 }),
    tarHeader({ name: "base/1", type: "file", mode: 0o600, sizeBytes: body.length }),
    body,
    tarPadding(body.length),
    tarEnd(),
  ];
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

Deno.test("TarReader reads what tarHeader writes, in chunks of any size", async () => {
  for (const size of [1, 7, 512, 513, 100_000]) {
    assert.deepEqual(await readAll(chunked(sample(), size)), [
      { name: "base", type: "directory", mode: 0o700, text: "", link: "" },
      { name: "base/1", type: "file", mode: 0o600, text: "x".repeat(700), link: "" },
    ]);
  }
});

Deno.test("TarReader reads long names, links and skips bodies of the system's tar", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const long = "d".repeat(90) + "/" + "f".repeat(120);
    Deno.mkdirSync(`${directory}/${"d".repeat(90)}`);
    Deno.writeTextFileSync(`${directory}/${long}`, "hello", { mode: 0o644 });
    Deno.chmodSync(`${directory}/${long}`, 0o640);
    Deno.symlinkSync("target", `${directory}/link`);
    for (const format of ["gnu", "pax"]) {
      const { stdout } = new Deno.Command("tar", {
        args: ["-C", directory, `--format=${format}`, "-c", long, "link"],
      }).outputSync();
      const found = await readAll(chunked(stdout, 1000));
      assert.deepEqual(found.map((entry) => [entry.name, entry.type, entry.text, entry.link]), [
        [long, "file", "hello", ""],
        ["link", "symlink", "", "target"],
      ]);
      assert.equal(found[0]!.mode, 0o640);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("TarReader refuses damaged and truncated archives", async () => {
  const damaged = sample();
  damaged[3]! ^= 1;
  await assert.rejects(readAll(chunked(damaged, 512)), /wrong header checksum/);
  await assert.rejects(readAll(chunked(sample().subarray(0, 1300), 512)), /bytes early/);
  await assert.rejects(readAll(chunked(sample().subarray(0, 700), 512)), /within a block/);
});

Deno.test("tarHeader is readable by the system's tar", () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, sample());
    const { stdout } = new Deno.Command("tar", { args: ["-tvf", path] }).outputSync();
    assert.match(
      new TextDecoder().decode(stdout),
      /drwx------.*base\/?\n-rw------- .* 700 .*base\/1/,
    );
  } finally {
    Deno.removeSync(path);
  }
});
