/**
 * Runs the verification of WAL (pageserver/wal_verify) as a program of its own, which may read the
 * copy of the cluster and the WAL, have a file for the pages that memory has no room for, and do
 * nothing else.
 */
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { crc32AddonPath } from "../libs/utils/crc32c.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { InvalidArgumentError } from "./command.ts";
import { PartialDirectory } from "./control_plane/partial_directory.ts";
import { programFile } from "./control_plane/supervisor.ts";

/** What `neon wal verify` was given. */
interface VerifyArguments {
  pgdata: string;
  wal: string;
  start?: string | undefined;
  end?: string | undefined;
  after?: string | undefined;
  show: number;
  memory: number;
  json?: true | undefined;
}

/** The real path, for a permission that holds behind links. Exit code 1 is for differences. */
function realPath(path: string): string {
  const found = ifThere(() => Deno.realPathSync(resolve(path)));
  if (found === undefined) {
    throw new InvalidArgumentError(`Cannot verify WAL: there is no "${path}"`);
  }
  return found;
}

/** Verifies, with the program's output for ours; returns its exit code. */
export async function verifyWal(args: VerifyArguments): Promise<number> {
  const pgdata = realPath(args.pgdata);
  const wal = realPath(args.wal);
  // A single segment is named, but those after it are read as well.
  const after = args.after === undefined ? undefined : realPath(args.after);
  const readable = [pgdata, Deno.statSync(wal).isFile ? dirname(wal) : wal];
  if (after !== undefined) readable.push(after);
  const addon = crc32AddonPath();
  using partial = new PartialDirectory(join(tmpdir(), `neon-wal-verify-${Deno.uid()}`));
  const scratch = Deno.realPathSync(partial.path);
  const paths = { pgdata, wal, after };
  return await runProgram({ ...args, ...paths }, [...readable, scratch], scratch, addon);
}

async function runProgram(
  args: VerifyArguments,
  readable: string[],
  scratch: string,
  addon: string | undefined,
): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--cached-only",
      `--config=${programFile("deno.json")}`,
      `--allow-read=${readable.join(",")}`,
      `--allow-write=${scratch}`,
      ...(addon === undefined ? [] : [`--allow-ffi=${addon}`]),
      programFile("pageserver/wal_verify/main.ts"),
      `--pgdata=${args.pgdata}`,
      `--wal=${args.wal}`,
      ...(args.after === undefined ? [] : [`--after=${args.after}`]),
      `--show=${args.show}`,
      `--memory=${args.memory}`,
      `--spill=${join(scratch, "pages")}`,
      ...(args.start === undefined ? [] : [`--start=${args.start}`]),
      ...(args.end === undefined ? [] : [`--end=${args.end}`]),
      ...(args.json ? ["--json"] : []),
    ],
    stdin: "null",
  }).spawn();
  // An interrupt ends the program; what it has written is then removed here
  const interrupt = () => {
    try {
      child.kill("SIGINT");
    } catch {
      // it has ended by itself, or by the terminal's own interrupt
    }
  };
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    return (await child.status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}
