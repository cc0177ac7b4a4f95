/**
 * Which remote storage a daemon uses, in its settings file, with the keys that Neon has:
 *
 *   remote_storage = { local_path = "/srv/neon-wal" }
 *   remote_storage = { bucket_name = "wal", bucket_region = "eu-central-1",
 *                      prefix_in_bucket = "neon", endpoint = "http://127.0.0.1:9000" }
 *
 * `endpoint` and `prefix_in_bucket` may be left out, and so may `concurrency_limit`, the number of
 * requests under way at once.
 */
import { z } from "zod";
import { BadRequest } from "../utils/errors.ts";
import { LocalDirectory } from "./local_directory.ts";
import type { StorageLocation } from "./location.ts";
import { RemoteStorage } from "./remote_storage.ts";

/** More at once make a disk no faster, but those who wait for their sync slower. */
const DIRECTORY_CONCURRENCY = 2;

const concurrency = z.int().min(1).max(1000).optional();

const directoryConfig = z.strictObject({
  local_path: z.string().regex(/^\//, "expected an absolute path"),
  concurrency_limit: concurrency,
});

const bucketConfig = z.strictObject({
  bucket_name: z.string().min(3),
  bucket_region: z.string().min(1),
  prefix_in_bucket: z.string().regex(/^[^/].*[^/]$|^[^/]?$/, "expected no / at its ends")
    .optional(),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  concurrency_limit: concurrency,
});

/** The setting. */
export const remoteStorageConfig = z.union([directoryConfig, bucketConfig]);

/** Checks the setting; `what` names where it was found. Throws BadRequest saying what is wrong. */
export function checkRemoteStorage(value: unknown, what: string): StorageLocation {
  const { success, data, error } = remoteStorageConfig.safeParse(value);
  if (success) return data;
  const why = z.prettifyError(error).replaceAll(/\s*\n\s*/g, " ");
  throw new BadRequest(
    `Cannot use ${what}: expected {local_path = "/..."} or {bucket_name = "...", ` +
      `bucket_region = "..."}; ${why}`,
  );
}

/** Opens it. Throws BadRequest for a bucket without credentials in the environment. */
export async function openRemoteStorage(config: StorageLocation): Promise<RemoteStorage> {
  const { concurrency_limit } = config;
  if ("local_path" in config) {
    const limits = { concurrency: concurrency_limit ?? DIRECTORY_CONCURRENCY };
    return new RemoteStorage(new LocalDirectory(config.local_path, Date.now()), limits);
  }
  const limits = concurrency_limit === undefined ? {} : { concurrency: concurrency_limit };
  const { S3Bucket } = await import("./s3_bucket.ts");
  const { bucket_name, bucket_region, prefix_in_bucket = "", endpoint } = config;
  const bucket = new S3Bucket({
    bucket: bucket_name,
    region: bucket_region,
    prefix: prefix_in_bucket === "" ? "" : `${prefix_in_bucket}/`,
    endpoint,
  }, (name) => Deno.env.get(name));
  return new RemoteStorage(bucket, limits);
}
