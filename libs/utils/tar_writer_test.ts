import assert from "node:assert/strict";
import { TarReader } from "./tar.ts";
import { TarWriter } from "./tar_writer.ts";

Deno.test("TarWriter writes what a tar reader reads, whatever the sizes", async () => {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((chunk) => Promise.resolve(void chunks.push(chunk.slice())));
  const contents = [0, 1, 511, 512, 513, 8192, 300_000].map((size, i) =>
    new Uint8Array(size).fill(i)
  );
  await tar.directory("base/5");
  for (const [i, content] of contents.entries()) await tar.file(`base/5/${i}`, content);
  await tar.beginFile("parts", 200_000);
  for (let i = 0; i < 4; i++) await tar.append(new Uint8Array(50_000).fill(i));
  await tar.endFile();
  await tar.finish();

  const reader = new TarReader((async function* () {
    yield* chunks;
  })());
  const directory = await reader.next();
  assert.deepEqual([directory?.name, directory?.type], ["base/5/", "directory"]);
  for (const [i, content] of contents.entries()) {
    assert.equal((await reader.next())?.name, `base/5/${i}`);
    assert.deepEqual(await reader.wholeBody(content.length), content);
  }
  assert.equal((await reader.next())?.sizeBytes, 200_000);
  const parts = await reader.wholeBody(200_000);
  assert.deepEqual([0, 1, 2, 3].map((i) => parts[i * 50_000 + 49_999]), [0, 1, 2, 3]);
  assert.equal(await reader.next(), undefined);
});

Deno.test("TarWriter.appendNow() has copied the bytes when it returns", async () => {
  const chunks: Uint8Array[] = [];
  const page = new Uint8Array(8192);
  const tar = new TarWriter(async (chunk) => {
    page.fill(0xff); // as another reader does while the chunk is on its way
    await Promise.resolve();
    chunks.push(chunk.slice());
  });
  await tar.beginFile("pages", 40 * page.length);
  for (let i = 0; i < 40; i++) {
    await tar.makeRoom(page.length);
    tar.appendNow(page.fill(i));
    page.fill(0xff);
  }
  await tar.endFile();
  await tar.finish();

  const reader = new TarReader((async function* () {
    yield* chunks;
  })());
  await reader.next();
  const body = await reader.wholeBody(40 * page.length);
  assert.ok(chunks.length > 2);
  for (let i = 0; i < 40; i++) {
    assert.deepEqual(body.subarray(i * 8192, (i + 1) * 8192), new Uint8Array(8192).fill(i));
  }
});
