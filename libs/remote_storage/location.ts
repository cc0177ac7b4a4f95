/**
 * Where a remote storage is, as far as it concerns those who do not use it themselves: what a
 * daemon that does must be permitted to reach. config.ts checks such a setting and opens it.
 */

interface DirectoryLocation {
  readonly local_path: string;
}

interface BucketLocation {
  readonly bucket_name: string;
  readonly bucket_region: string;
  readonly prefix_in_bucket?: string | undefined;
  readonly endpoint?: string | undefined;
}

/** The setting. */
export type StorageLocation = (DirectoryLocation | BucketLocation) & {
  readonly concurrency_limit?: number | undefined;
};

/** Variables of the environment that credentials for a bucket are in. */
export const CREDENTIAL_VARIABLES: readonly string[] = [
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
];

/** A place of its own for one kind of data in a remote storage that several share. */
export function storageBelow(location: StorageLocation, name: string): StorageLocation {
  if ("local_path" in location) {
    return { ...location, local_path: `${location.local_path}/${name}` };
  }
  const { prefix_in_bucket: prefix = "" } = location;
  return { ...location, prefix_in_bucket: prefix === "" ? name : `${prefix}/${name}` };
}

/** The hosts that it is reached at, as host:port; none for a directory. */
export function storageHosts(location: StorageLocation): string[] {
  if ("local_path" in location) return [];
  const { bucket_name: bucket, bucket_region: region, endpoint } = location;
  if (endpoint !== undefined) {
    const { hostname, port, protocol } = new URL(endpoint);
    return [`${hostname}:${port || (protocol === "https:" ? 443 : 80)}`];
  }
  const suffix = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  const host = `s3.${region}.${suffix}:443`;
  return [`${bucket}.${host}`, host];
}

/** For people, for example `/srv/wal` or `s3://wal/neon`. */
export function describeStorage(location: StorageLocation): string {
  if ("local_path" in location) return location.local_path;
  const { bucket_name, prefix_in_bucket = "", endpoint } = location;
  return `s3://${bucket_name}/${prefix_in_bucket}${
    endpoint === undefined ? "" : ` at ${endpoint}`
  }`;
}
