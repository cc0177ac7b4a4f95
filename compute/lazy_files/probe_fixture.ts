/**
 * For tests of the library without Postgres: a data directory with nothing but lazy files, a page
 * service for it, and the C programs of testdata/ compiled and started through the launcher as if
 * they were Postgres.
 *
 * With NEON_TEST_ARM64=1 on another machine they are cross-compiled and run by QEMU's user mode
 * emulation, with the library for arm64: Debian's gcc-aarch64-linux-gnu and qemu-user.
 */
import { basename, dirname, join } from "node:path";
import type { LazyFork } from "../../libs/basebackup/lazy_files_map.ts";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { toLsn } from "../../libs/utils/lsn.ts";
import { type ArenaStatistics, readArenaStatistics } from "./arena.ts";
import { ARM64, compilerVersion, NATIVE, prebuiltLibrary } from "./build.ts";
import { layOutFiles, type LayOutOptions } from "./lay_out.ts";
import { LAUNCHER } from "./cluster_fixture.ts";
import { bootId } from "./lazy_clone_fixture.ts";
import { PageServiceFixture, type PageSource } from "./page_service_fixture.ts";

/** What torture.c looks for in a served page. */
const SERVED_MARK = 0x5e17edn;

/** Whether the programs run under emulation. */
export const IS_EMULATED = NATIVE.platform !== ARM64.platform &&
  Deno.env.get("NEON_TEST_ARM64") === "1";
const TARGET = IS_EMULATED ? ARM64 : NATIVE;
/** Becomes the program of its own name in arm64/: the library looks at the name. */
const EMULATION = `#!/bin/sh
exec qemu-aarch64 -L /usr/aarch64-linux-gnu "\${0%/*}/arm64/\${0##*/}" "$@"
`;
/** The shell and QEMU cannot load the library, and say so. */
const NOT_FOR_US = /^ERROR: ld\.so: object .* cannot be preloaded/;

/** True where the C programs can be compiled; otherwise says that tests are skipped. */
export function hasCompiler(): boolean {
  const has = Deno.build.os === "linux" && compilerVersion(TARGET) !== undefined;
  if (!has) console.log("tests of the lazy file library are skipped: there is no C compiler");
  return has;
}

/** The page that `markedPages` serves: block in words 0 and 1022, relation in word 3, a mark. */
export function markedPage(rel: number, block: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  writeMarkedPage(rel, block, page, 0);
  return page;
}

function writeMarkedPage(rel: number, block: number, into: Uint8Array, at: number): void {
  const view = new DataView(into.buffer, into.byteOffset + at, PAGE_SIZE);
  into.fill(0, at, at + PAGE_SIZE);
  view.setBigUint64(0, BigInt(block), true);
  view.setBigUint64(1022 * 8, BigInt(block), true);
  view.setBigUint64(2 * 8, SERVED_MARK, true);
  view.setBigUint64(3 * 8, BigInt(rel), true);
}

/** Serves every block of every relation. */
export const markedPages: PageSource = (request, into, at) => {
  writeMarkedPage(request.rel, request.block, into, at);
  return undefined;
};

const MASK_64 = (1n << 64n) - 1n;

/** What probe.c prints for a read of these bytes. */
export function okLine(...pages: Uint8Array[]): string {
  let sum = 1469598103934665603n;
  let length = 0;
  for (const page of pages) {
    length += page.length;
    for (const byte of page) sum = ((sum ^ BigInt(byte)) * 1099511628211n) & MASK_64;
  }
  return `ok ${length} ${sum.toString(16).padStart(16, "0")}`;
}

/** A lazy directory and what it needs. */
export class ProbeSite {
  readonly directory: string;
  readonly pgdata: string;
  readonly arenaPath: string;
  readonly pages: PageServiceFixture;

  /** Compiles testdata/`program` and lays `forks` of base/1 out. */
  constructor(program: string, forks: Partial<LazyFork>[], options: Partial<LayOutOptions> = {}) {
    this.directory = Deno.makeTempDirSync({ prefix: "lazy-probe-" });
    this.pgdata = join(this.directory, "pgdata");
    this.arenaPath = join(this.directory, "arena");
    Deno.mkdirSync(join(this.pgdata, "pg_tblspc"), { recursive: true, mode: 0o700 });
    compile(program, join(this.directory, "postgres"));
    this.pages = new PageServiceFixture(markedPages);
    layOutFiles({
      pgdata: this.pgdata,
      arenaPath: this.arenaPath,
      map: {
        lsn: toLsn(0x2000028),
        prevLsn: toLsn(0x2000000),
        pgMajor: 17,
        forks: forks.map((fork) => ({ spc: 1663, db: 1, rel: 1000, fork: 0, blocks: 1, ...fork })),
      },
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pageserver: this.pages.address,
      bootId: bootId(),
      retrySeconds: 0,
      ...options,
    });
  }

  /** Runs the program; returns its exit code and what it and the library printed, in lines. */
  async run(...args: string[]): Promise<{ code: number; lines: string[]; log: string }> {
    const logPath = Deno.makeTempFileSync({ dir: this.directory });
    const { code } = await new Deno.Command(LAUNCHER, {
      args: [
        "start",
        "--library",
        prebuiltLibrary(TARGET),
        this.pgdata,
        logPath,
        this.arenaPath,
        this.directory,
        "-", // as ourselves
        "-",
        "--",
        ...args,
      ],
    }).output();
    const all = Deno.readTextFileSync(logPath).split("\n")
      .filter((line) => line !== "" && !(IS_EMULATED && NOT_FOR_US.test(line)));
    const isLog = (line: string) => line.startsWith("neon_lazy_files[");
    return {
      code,
      lines: all.filter((line) => !isLog(line)),
      log: all.filter(isLog).join("\n"),
    };
  }

  get statistics(): ArenaStatistics {
    return readArenaStatistics(this.arenaPath);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pages.close();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

function compile(program: string, path: string): void {
  const output = IS_EMULATED ? join(dirname(path), "arm64", basename(path)) : path;
  if (IS_EMULATED) {
    Deno.mkdirSync(dirname(output), { recursive: true });
    Deno.writeTextFileSync(path, EMULATION, { mode: 0o755 });
  }
  const { success, stderr } = new Deno.Command(TARGET.compiler, {
    // Fortified, as distributions build Postgres: it then calls other names of the same functions.
    args: ["-O2", "-D_FORTIFY_SOURCE=2", "-o", output, program],
    cwd: join(import.meta.dirname!, "testdata"),
  }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}
