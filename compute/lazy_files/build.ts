/**
 * Builds the preloaded library from library/*.c into prebuilt/<platform>/neon_lazy_files.so, which
 * is committed, with the compiler's version and a digest of the sources and flags beside it: so
 * that a file that was not built again after a change is seen where its compiler is not installed.
 *
 *   deno run -A compute/lazy_files/build.ts            build and replace the prebuilt file
 *   deno run -A compute/lazy_files/build.ts --check    build and compare; passes without comparing
 *                                                      where another compiler is installed
 *   deno run -A compute/lazy_files/build.ts --arm64    the arm64 file, by a cross compiler
 *
 * The same compiler makes the same bytes in any directory: no build id, no times, no paths. The
 * library may import three plain libc symbols and no needed library, so that one file works with
 * every glibc and every PostgreSQL; the build fails if it needs more.
 */
import { createHash } from "node:crypto";

const HERE = import.meta.dirname!;
const SOURCES = [
  "library.c",
  "lookup.c",
  "claims.c",
  "page_client.c",
  "fill.c",
  "write.c",
  "wal_flush.c",
  "interpose_open.c",
  "interpose_io.c",
  "interpose_names.c",
  "interpose_sync.c",
];
const FLAGS = [
  "-std=gnu11",
  "-O2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-D_GNU_SOURCE",
  "-U_FORTIFY_SOURCE",
  "-ffreestanding",
  "-fPIC",
  "-shared",
  "-nostdlib",
  "-fvisibility=hidden",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fno-delete-null-pointer-checks", // libc's headers promise non-null paths, callers need not
  "-ffile-prefix-map=.=.",
  "-Wl,--build-id=none",
  "-Wl,--hash-style=both",
  "-Wl,-Bsymbolic",
  "-Wl,-z,noexecstack",
  "-Wl,-z,noseparate-code",
  "-Wl,-s",
];
const ALLOWED_IMPORTS = new Set(["__errno_location", "environ", "fdopen"]);
const LIBRARY_BYTES_MAX = 40 * 1024;

/** A compiler and the platform directory its output goes to. */
interface Target {
  readonly compiler: string;
  readonly nm: string;
  readonly platform: "linux-x64" | "linux-arm64";
  readonly flags: readonly string[];
}

/** Built by a cross compiler elsewhere. */
export const ARM64: Target = {
  compiler: "aarch64-linux-gnu-gcc",
  nm: "aarch64-linux-gnu-nm",
  platform: "linux-arm64",
  // Atomics in line: helpers would be an import. No relro: its padding to 64 KiB pages is the file.
  flags: ["-mno-outline-atomics", "-Wl,-z,norelro"],
};

/** This machine's compiler. */
export const NATIVE: Target = Deno.build.arch === "aarch64"
  ? { ...ARM64, compiler: "cc", nm: "nm" }
  : { compiler: "cc", nm: "nm", platform: "linux-x64", flags: ["-fcf-protection=none"] };

/** Digest of what a target's library is made from. */
function sourcesDigest(target: Target): string {
  const hash = createHash("sha256");
  const names = [...Deno.readDirSync(`${HERE}/library`)].map(({ name }) => name).sort();
  for (const name of names) hash.update(name).update(Deno.readFileSync(`${HERE}/library/${name}`));
  return hash.update([...FLAGS, ...target.flags, ...SOURCES].join("\n")).digest("hex");
}

/** Whether the committed library was built from the sources as they are now. */
export function isCurrent(target: Target): boolean {
  const recorded = Deno.readTextFileSync(`${directoryOf(prebuiltLibrary(target))}/sources.txt`);
  return recorded.trim() === sourcesDigest(target);
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** Path of the committed library for a target's platform. */
export function prebuiltLibrary(target: Target): string {
  return `${HERE}/prebuilt/${target.platform}/neon_lazy_files.so`;
}

function run(program: string, args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(program, {
    args,
    cwd: `${HERE}/library`, // relative names: the directory leaves no trace in the output
    env: { LC_ALL: "C" },
  }).outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Cannot run ${program}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** First line of `--version`; undefined if there is no such compiler. */
export function compilerVersion(target: Target): string | undefined {
  try {
    return run(target.compiler, ["--version"]).split("\n")[0]!;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

/** Compiles to `output`. Throws if the result needs more than it may. */
function buildLibrary(target: Target, output: string): void {
  run(target.compiler, [...FLAGS, ...target.flags, "-o", output, ...SOURCES]);
  for (const line of run(target.nm, ["-D", "--undefined-only", output]).split("\n")) {
    const [kind, name] = line.trim().split(/\s+/);
    if (kind === "U" && !ALLOWED_IMPORTS.has(name!)) {
      throw new Error(`Cannot use ${output}: it imports ${name}`);
    }
  }
  const { size } = Deno.statSync(output);
  if (size > LIBRARY_BYTES_MAX) throw new Error(`Cannot use ${output}: it has ${size} bytes`);
}

function replacePrebuilt(target: Target): void {
  const version = compilerVersion(target);
  if (version === undefined) throw new Error(`Cannot build: there is no ${target.compiler}`);
  const library = prebuiltLibrary(target);
  const directory = directoryOf(library);
  Deno.mkdirSync(directory, { recursive: true });
  buildLibrary(target, library);
  Deno.writeTextFileSync(`${directory}/compiler.txt`, `${version}\n`);
  Deno.writeTextFileSync(`${directory}/sources.txt`, `${sourcesDigest(target)}\n`);
  console.log(`${library}: ${Deno.statSync(library).size} bytes`);
}

/**
 * Builds again and compares with the committed file: "same", "different", or "not compared" where
 * the compiler is missing or of another version.
 */
export function checkPrebuilt(target: Target): "same" | "different" | "not compared" {
  const library = prebuiltLibrary(target);
  const directory = directoryOf(library);
  const builtWith = Deno.readTextFileSync(`${directory}/compiler.txt`).trim();
  if (compilerVersion(target) !== builtWith) return "not compared";
  const output = Deno.makeTempFileSync({ suffix: ".so" });
  try {
    buildLibrary(target, output);
    const [fresh, committed] = [Deno.readFileSync(output), Deno.readFileSync(library)];
    const same = fresh.length === committed.length && fresh.every((b, i) => b === committed[i]);
    return same ? "same" : "different";
  } finally {
    Deno.removeSync(output);
  }
}

if (import.meta.main) {
  const target = Deno.args.includes("--arm64") ? ARM64 : NATIVE;
  if (Deno.args.includes("--check")) {
    const result = checkPrebuilt(target);
    console.log(`${prebuiltLibrary(target)}: ${result}`);
    if (result === "different") Deno.exit(1);
  } else {
    replacePrebuilt(target);
  }
}
