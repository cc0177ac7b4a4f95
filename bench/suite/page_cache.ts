/** Puts files out of the operating system's page cache, so that the next read is from the disk. */
import { join } from "node:path";

/** Smaller files are left where they are: they are configuration, not data. */
const BYTES_MIN = 64 * 1024;

function filesBelow(directory: string): string[] {
  return [...Deno.readDirSync(directory)].flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory) return filesBelow(path);
    return entry.isFile && Deno.statSync(path).size >= BYTES_MIN ? [path] : [];
  });
}

/**
 * Drops what the page cache has of the files below a directory; needs no privilege. dd writes the
 * file out first (conv=fdatasync), because dirty pages cannot be dropped (posix_fadvise(2)).
 */
export async function dropFromPageCache(directory: string): Promise<void> {
  for (const path of filesBelow(directory)) {
    const { success, stderr } = await new Deno.Command("dd", {
      args: [`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"],
      stdin: "null",
    }).output();
    if (!success) throw new Error(`dd failed: ${new TextDecoder().decode(stderr).trim()}`);
  }
}
