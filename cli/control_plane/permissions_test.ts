import assert from "node:assert/strict";
import {
  brokerPermissions,
  computePermissions,
  pageserverPermissions,
  safekeeperPermissions,
} from "./permissions.ts";

const storage = {
  directory: "/n/role",
  listen: ["127.0.0.1:1", "127.0.0.1:2"],
  connect: ["127.0.0.1:50051"],
  protocolFile: "/src/storage_broker.proto",
  addons: ["/npm/crc32.node"],
};

/** Each role's flags, written out: a wider one must be a decision, not an accident. */
Deno.test("daemons get exactly these permissions", () => {
  const grpc = "--allow-env=GRPC_*,grpc_proxy,http_proxy,https_proxy,no_grpc_proxy,no_proxy";
  const storageFlags = [
    "--no-prompt",
    "--cached-only",
    "--allow-net=127.0.0.1:1,127.0.0.1:2,127.0.0.1:50051",
    "--allow-read=/n/role,/src/storage_broker.proto",
    "--allow-write=/n/role",
    grpc,
    "--allow-ffi=/npm/crc32.node",
  ];
  assert.deepEqual(
    brokerPermissions({
      directory: "/n/broker",
      listen: ["127.0.0.1:1", "127.0.0.1:2"],
      protocolFile: "/src/storage_broker.proto",
    }),
    [
      "--no-prompt",
      "--cached-only",
      "--allow-net=127.0.0.1:1,127.0.0.1:2",
      "--allow-read=/n/broker,/src/storage_broker.proto",
      "--allow-write=/n/broker",
      grpc,
    ],
  );
  assert.deepEqual(safekeeperPermissions(storage), storageFlags);
  assert.deepEqual(pageserverPermissions(storage), storageFlags);
  const remote = (directories: string[], hosts: string[]) =>
    safekeeperPermissions({ ...storage, remote: { directories, hosts } })
      .filter((flag) => !storageFlags.includes(flag));
  assert.deepEqual(remote(["/srv/wal"], []), [
    "--allow-read=/n/role,/src/storage_broker.proto,/srv/wal",
    "--allow-write=/n/role,/srv/wal",
  ]);
  assert.deepEqual(remote([], ["store:9000"]), [
    "--allow-net=127.0.0.1:1,127.0.0.1:2,127.0.0.1:50051,store:9000",
    `${grpc},AWS_*,HOME,USERPROFILE,HOMEPATH,HOMEDRIVE,_X_AMZN_TRACE_ID`,
  ]);
  assert.deepEqual(
    computePermissions({
      directory: "/n/compute",
      listen: ["127.0.0.1:3080"],
      connect: ["127.0.0.1:64000"],
      addons: [],
      socket: "/n/compute/postgres.sock",
      launcher: "/cache/launcher.sh",
      readable: ["/cache", "/pg"],
    }),
    [
      "--no-prompt",
      "--cached-only",
      "--allow-net=127.0.0.1:3080,127.0.0.1:64000,127.0.0.1,unix:/n/compute/postgres.sock",
      "--allow-read=/n/compute,/cache,/pg",
      "--allow-write=/n/compute",
      "--allow-run=/cache/launcher.sh",
    ],
  );
});
