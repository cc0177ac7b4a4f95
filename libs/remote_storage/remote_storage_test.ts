/** Remote storage: what both kinds do alike, what each does when things fail. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { BadRequest, NotFound, Unavailable } from "../utils/errors.ts";
import type { Backend, RemoteObject, UploadSource } from "./backend.ts";
import { checkRemoteStorage } from "./config.ts";
import { LocalDirectory } from "./local_directory.ts";
import { describeStorage, storageBelow, storageHosts } from "./location.ts";
import { RemoteStorage, type RemoteStorageLimits } from "./remote_storage.ts";
import { S3Bucket } from "./s3_bucket.ts";
import { type Fault, TEST_BUCKET, TEST_CREDENTIALS, TestS3 } from "./s3_server_fixture.ts";
import { bytesSource, fileSource } from "./upload_sources.ts";

/** A part in S3 has at least 5 MiB: this is three of ours. */
const LARGE_BYTES = 20 * 1024 * 1024;

function pattern(count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) bytes[i] = i * 7 + (i >> 8);
  return bytes;
}

async function allOf(objects: AsyncIterable<RemoteObject>): Promise<RemoteObject[]> {
  return await Array.fromAsync(objects);
}

function bucket(s3: TestS3, options: { listMax?: number; singlePutBytes?: number } = {}): S3Bucket {
  const location = { bucket: TEST_BUCKET, region: "eu-central-1", endpoint: s3.endpoint };
  return new S3Bucket({ ...location, prefix: "neon/", ...options }, (key) => TEST_CREDENTIALS[key]);
}

/** Runs `body` on a directory and on a bucket. */
function onBoth(
  name: string,
  body: (storage: RemoteStorage, backend: Backend) => Promise<void>,
): void {
  Deno.test(`a directory ${name}`, async () => {
    const root = Deno.makeTempDirSync({ prefix: "remote_" });
    const backend = new LocalDirectory(`${root}/made/later`, Date.now());
    try {
      await body(new RemoteStorage(backend), backend);
    } finally {
      Deno.removeSync(root, { recursive: true });
    }
  });
  Deno.test(`a bucket ${name}`, async () => {
    await using s3 = await TestS3.start();
    const backend = bucket(s3, { listMax: 2, singlePutBytes: 1024 * 1024 });
    await body(new RemoteStorage(backend), backend);
  });
}

onBoth("gives back what was put, whole and in parts", async (storage) => {
  const large = pattern(LARGE_BYTES);
  for (const count of [0, 1, 100_000, LARGE_BYTES]) {
    const bytes = large.subarray(0, count);
    await storage.upload("a/b c/~x", bytesSource(bytes));
    assert.ok(Buffer.from(bytes).equals(await storage.read("a/b c/~x")));
  }
  assert.deepEqual(await storage.read("a/b c/~x", { start: 5, end: 8 }), pattern(8).subarray(5));
  await storage.upload("a/b c/~x", bytesSource(pattern(3)));
  assert.deepEqual(await storage.read("a/b c/~x"), pattern(3));
  await assert.rejects(storage.read("a/b c/~x", { start: 2, end: 5 }), BadRequest);
  await assert.rejects(storage.read("a/b c"), NotFound);
  await assert.rejects(storage.read("a/b c/~x/y"), NotFound);
});

onBoth("lists in order, over pages, and deletes many", async (storage) => {
  const keys = ["a/1", "a/2", "a/3/x", "a/3/y", "a/30", "ab", "b"];
  await Promise.all(keys.map((key) => storage.upload(key, bytesSource(pattern(key.length)))));
  const listed = async (prefix: string) =>
    (await allOf(storage.list(prefix))).map((object) => object.key);
  assert.deepEqual(await listed(""), [...keys].sort());
  assert.deepEqual(await listed("a/3"), ["a/3/x", "a/3/y", "a/30"]);
  assert.deepEqual(await listed("none/of/them"), []);
  assert.deepEqual(await allOf(storage.list("ab")), [{ key: "ab", bytes: 2 }]);
  await storage.delete(["a/3/x", "a/3/y", "b", "never/there"]);
  await storage.delete(["a/3/x"]);
  await storage.delete([]);
  assert.deepEqual(await listed(""), ["a/1", "a/2", "a/30", "ab"]);
});

onBoth("downloads into a file", async (storage) => {
  const directory = Deno.makeTempDirSync();
  const path = `${directory}/file`;
  Deno.writeFileSync(path, pattern(1_000_000));
  const pieces: number[] = [];
  const open = () => Deno.openSync(path);
  const source = fileSource(open, 600_000, (piece, offset) => pieces.push(offset, piece.length));
  await storage.upload("segment", source);
  assert.equal(pieces.at(-1)! + pieces.at(-2)!, 600_000);
  await storage.download("segment", path);
  assert.ok(Buffer.from(pattern(600_000)).equals(Deno.readFileSync(path)));
  await assert.rejects(storage.download("nothing", path), NotFound);
  assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["file"]);
  Deno.removeSync(directory, { recursive: true });
});

onBoth("keeps what was there when an upload goes wrong", async (storage) => {
  await storage.upload("k", bytesSource(pattern(10)));
  const announced = (bytes: number): UploadSource => ({ ...bytesSource(pattern(100)), bytes });
  await assert.rejects(storage.upload("k", announced(99)), /there are more/);
  await assert.rejects(storage.upload("k", announced(101)), /there are 100/);
  const failing: UploadSource = {
    bytes: 100,
    async *open() {
      yield pattern(50);
      throw new Error("the disk is gone");
    },
  };
  await assert.rejects(storage.upload("k", failing), /the disk is gone/);
  assert.deepEqual(await storage.read("k"), pattern(10));
  assert.deepEqual(await allOf(storage.list("")), [{ key: "k", bytes: 10 }]);
});

onBoth("can be cancelled", async (storage) => {
  const control = new AbortController();
  const reason = new Error("no more");
  let pieces = 0;
  const endless: UploadSource = {
    bytes: LARGE_BYTES * 1000,
    async *open() {
      for (;;) {
        if (++pieces === 3) control.abort(reason);
        yield pattern(1000);
      }
    },
  };
  await assert.rejects(storage.upload("k", endless, control.signal), reason);
  await assert.rejects(storage.read("k", undefined, control.signal), reason);
  await assert.rejects(storage.read("k"), NotFound);
});

Deno.test("a bucket's failures that pass are survived", async () => {
  await using s3 = await TestS3.start();
  const storage = new RemoteStorage(bucket(s3), { attemptMs: 200 });
  const faults: Fault[] = ["refused", "reset", "answer lost"];
  const bytes = pattern(1_000_000);
  s3.faults.push(...faults, "silent");
  await storage.upload("a/1", bytesSource(bytes));
  s3.faults.push(...faults, "silent", "truncated");
  assert.ok(Buffer.from(bytes).equals(await storage.read("a/1")));
  s3.faults.push(...faults, "truncated");
  assert.deepEqual(
    await storage.read("a/1", { start: 1000, end: 70_000 }),
    bytes.slice(1000, 70_000),
  );
  s3.faults.push(...faults, "truncated");
  assert.deepEqual(await allOf(storage.list("a/")), [{ key: "a/1", bytes: bytes.length }]);
  s3.faults.push(...faults, "truncated");
  await storage.delete(["a/1"]);
  assert.deepEqual(s3.faults, []);
  assert.deepEqual(await allOf(storage.list("")), []);
});

Deno.test("a bucket's failures that do not pass are told, after all attempts", async () => {
  await using s3 = await TestS3.start();
  const limits: Partial<RemoteStorageLimits> = { attempts: 3 };
  const storage = new RemoteStorage(bucket(s3), limits);
  s3.faults.push("refused", "refused", "refused");
  await assert.rejects(storage.read("k"), (thrown) => {
    assert.ok(thrown instanceof Unavailable);
    assert.match(thrown.message, /Cannot get "k" in bucket "wal-bucket" \(3 attempts\)/);
    return true;
  });
  assert.equal(s3.seen.length, 3);
  const denied = new S3Bucket(
    { bucket: TEST_BUCKET, region: "x", endpoint: s3.endpoint, prefix: "" },
    () => "wrong",
  );
  await assert.rejects(new RemoteStorage(denied).read("k"), BadRequest);
  const absent = new S3Bucket(
    { bucket: "another-bucket", region: "x", endpoint: s3.endpoint, prefix: "" },
    (key) => TEST_CREDENTIALS[key],
  );
  await assert.rejects(new RemoteStorage(absent).read("k"), /NoSuchBucket/);
  assert.equal(s3.seen.length, 5, "neither was tried again");
  assert.throws(() => new S3Bucket({ bucket: "b", region: "x", prefix: "" }, () => undefined));
});

Deno.test("only so many requests are under way at once, the others in line", async () => {
  let running = 0;
  let most = 0;
  const gates: (() => void)[] = [];
  const slow: Backend = {
    name: "slow",
    keysMax: 1,
    async put() {
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => gates.push(resolve));
      running--;
    },
    get: () => Promise.reject(new NotFound("")),
    list: () => Promise.reject(new NotFound("")),
    remove: () => Promise.resolve(),
  };
  const storage = new RemoteStorage(slow, { concurrency: 2 });
  const control = new AbortController();
  const none = bytesSource(new Uint8Array(0));
  const uploads = ["a", "b", "c"].map((key) => storage.upload(key, none));
  const cancelled = storage.upload("d", none, control.signal);
  control.abort(new Error("left the line"));
  await assert.rejects(cancelled, /left the line/);
  for (let ended = 0; ended < 3; ended++) {
    while (gates.length === 0) await Promise.resolve();
    gates.shift()!();
    await uploads[ended];
  }
  assert.equal(most, 2);
});

Deno.test("a directory shows nothing of an upload that was interrupted", async () => {
  const root = Deno.makeTempDirSync({ prefix: "remote_" });
  const dayMs = 86_400_000;
  Deno.mkdirSync(`${root}/.___temp`);
  Deno.writeTextFileSync(`${root}/.___temp/half`, "ha");
  const storage = new RemoteStorage(new LocalDirectory(root, Date.now()));
  assert.deepEqual(await allOf(storage.list("")), []);
  await assert.rejects(storage.read(".___temp/half"), BadRequest);
  for (const key of ["", "/a", "a//b", "../a", "a/.", "a\0"]) {
    await assert.rejects(storage.upload(key, bytesSource(new Uint8Array(1))), BadRequest);
  }
  assert.equal([...Deno.readDirSync(`${root}/.___temp`)].length, 1, "somebody may be writing it");
  new LocalDirectory(root, Date.now() + 2 * dayMs);
  assert.equal([...Deno.readDirSync(`${root}/.___temp`)].length, 0);
  Deno.removeSync(root, { recursive: true });
});

Deno.test("the setting takes a directory or a bucket, nothing else", () => {
  const check = (value: unknown) => checkRemoteStorage(value, "remote_storage");
  const bucketAt = (endpoint: string) => ({ bucket_name: "wal", bucket_region: "x", endpoint });
  for (const value of [{ local_path: "/srv/wal" }, bucketAt("http://127.0.0.1:9000")]) {
    assert.deepEqual(check(value), value);
  }
  const wrong = [
    {},
    { local_path: "srv" },
    { bucket_name: "wal" },
    { bucket_name: "wal", bucket_region: "x", endpoint: "127.0.0.1:9000" },
    { bucket_name: "wal", bucket_region: "x", prefix_in_bucket: "/a" },
    { local_path: "/srv/wal", bucket_name: "wal", bucket_region: "x" },
    { local_path: "/srv/wal", concurrency_limit: 0 },
  ];
  for (const value of wrong) {
    assert.throws(() => check(value), /Cannot use remote_storage: expected/);
  }
  assert.deepEqual(storageBelow({ local_path: "/srv" }, "sk"), { local_path: "/srv/sk" });
  const named = { bucket_name: "wal", bucket_region: "x" };
  assert.deepEqual(storageBelow(named, "sk"), { ...named, prefix_in_bucket: "sk" });
  assert.deepEqual(storageBelow({ ...named, prefix_in_bucket: "a" }, "sk"), {
    ...named,
    prefix_in_bucket: "a/sk",
  });
  assert.deepEqual(storageHosts({ local_path: "/srv" }), []);
  assert.deepEqual(storageHosts(bucketAt("http://127.0.0.1:9000")), ["127.0.0.1:9000"]);
  assert.deepEqual(storageHosts(bucketAt("https://store.example/s3")), ["store.example:443"]);
  assert.deepEqual(storageHosts({ bucket_name: "wal", bucket_region: "eu-west-1" }), [
    "wal.s3.eu-west-1.amazonaws.com:443",
    "s3.eu-west-1.amazonaws.com:443",
  ]);
  assert.equal(describeStorage({ local_path: "/srv" }), "/srv");
  assert.equal(describeStorage(bucketAt("http://a:1")), "s3://wal/ at http://a:1");
});
