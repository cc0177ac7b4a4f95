/**
 * The `neon` command within this process: the same entry point, with its output caught. Starting a
 * process for each of a hundred commands would take a hundred times a quarter of a second.
 */
import process from "node:process";
import { runCommand } from "../../cli/main.ts";
import type { CommandResult } from "../harness.ts";

/** Runs the command on a state directory. One at a time. */
export async function runInside(repoDir: string, args: string[]): Promise<CommandResult> {
  const result = { code: 0, stdout: "", stderr: "" };
  const restore: (() => void)[] = [];
  const decoder = new TextDecoder();
  const hear = (stream: "stdout" | "stderr") => {
    const [raw, node] = [Deno[stream], process[stream]];
    const { writeSync } = raw;
    const { write } = node;
    raw.writeSync = (bytes) => {
      result[stream] += decoder.decode(bytes);
      return bytes.length;
    };
    node.write = (text: string | Uint8Array) => {
      result[stream] += typeof text === "string" ? text : decoder.decode(text);
      return true;
    };
    restore.push(() => {
      raw.writeSync = writeSync;
      node.write = write;
    });
  };
  const before = Deno.env.get("NEON_REPO_DIR");
  Deno.env.set("NEON_REPO_DIR", repoDir);
  hear("stdout");
  hear("stderr");
  try {
    result.code = await runCommand(args);
  } finally {
    for (const undo of restore) undo();
    if (before === undefined) Deno.env.delete("NEON_REPO_DIR");
    else Deno.env.set("NEON_REPO_DIR", before);
    Deno.exitCode = 0;
  }
  return result;
}
