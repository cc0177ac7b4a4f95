/**
 * The flags of every daemon of a local Neon, as testdata/permissions.txt has them: a wider one must
 * be a decision, not an accident. After such a decision:
 *
 *     deno test -A cli/control_plane/permissions_test.ts -- --update
 */
import assert from "node:assert/strict";
import { crc32AddonPath } from "../../libs/utils/crc32c.ts";
import { type Config, defaultConfig } from "./config.ts";
import { allRoles } from "./lifecycle.ts";
import { programFile } from "./supervisor.ts";

const SNAPSHOT = programFile("cli/control_plane/testdata/permissions.txt");

const bucket = { bucket_name: "wal", bucket_region: "eu-north-1" };

const CONFIGURATIONS: Record<string, Config> = {
  "three safekeepers": defaultConfig(3, 17),
  "tokens": {
    ...defaultConfig(1, 17),
    private_key_path: "auth_private_key.pem",
    public_key_path: "/srv/keys",
  },
  "WAL in a directory": { ...defaultConfig(1, 17), remote_storage: { local_path: "/srv/wal" } },
  "WAL in a bucket": { ...defaultConfig(1, 17), remote_storage: bucket },
  "WAL in a bucket of one's own": {
    ...defaultConfig(1, 17),
    remote_storage: { ...bucket, endpoint: "http://127.0.0.1:9000" },
  },
};

function rolesOf(config: Config) {
  return allRoles({ repoDir: "/home/me/.neon", config });
}

/** One flag a line; what differs between machines is named. */
function snapshot(): string {
  const lines: string[] = [];
  for (const [name, config] of Object.entries(CONFIGURATIONS)) {
    lines.push(`# ${name}`);
    for (const role of rolesOf(config)) {
      lines.push("", role.name, ...role.permissions.map((flag) => `  ${flag}`));
    }
    lines.push("");
  }
  return (lines.join("\n") + "\n")
    .replaceAll(programFile("/"), "PROGRAM/")
    .replaceAll(crc32AddonPath() ?? "no add-on", "NPM/crc32.node")
    .replaceAll(/=[^=]*\/compute-[0-9a-f]{16}\//g, "=CACHE/compute-HASH/");
}

Deno.test("daemons get exactly the permissions of the snapshot", () => {
  const found = snapshot();
  if (Deno.args.includes("--update")) Deno.writeTextFileSync(SNAPSHOT, found);
  assert.equal(found, Deno.readTextFileSync(SNAPSHOT));
});

Deno.test("no daemon has a permission without a list, or an address without a port", () => {
  for (const config of Object.values(CONFIGURATIONS)) {
    for (const { name, permissions } of rolesOf(config)) {
      for (const flag of permissions) {
        const [kind, list] = flag.split("=");
        if (["--no-prompt", "--cached-only", "--no-remote"].includes(flag)) continue;
        assert.match(kind!, /^--allow-(read|write|net|env|run|ffi)$/, `${name}: ${flag}`);
        for (const value of list!.split(",")) {
          const pattern = kind === "--allow-net"
            ? /^([a-z0-9.-]+:\d+|unix:\/.+)$/
            : kind === "--allow-env"
            ? /^[A-Z_]+\*?$/
            : /^\/.+\/.+/;
          assert.match(value, pattern, `${name}: ${flag}`);
          assert.doesNotMatch(value, /^0\.0\.0\.0:/);
        }
      }
    }
  }
});

Deno.test("a path with a comma is refused: Deno would take it for two", () => {
  const config = defaultConfig(1, 17);
  assert.throws(
    () => allRoles({ repoDir: "/srv/a,/etc", config }),
    /Cannot limit a daemon to "\/srv\/a,\/etc\/storage_broker": a path may have no comma/,
  );
});
