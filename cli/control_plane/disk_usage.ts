/** How much disk a directory takes, as `du` counts it, but never longer than a time limit. */

/** Bytes of a disk block, whatever the file system's own are (stat, st_blocks). */
const BLOCK_BYTES = 512;

/** What was counted. */
interface DiskUsage {
  bytes: number;
  /** False: there is more, the time was over. */
  isComplete: boolean;
}

/**
 * Adds up what is below `directory`, without the directories in `except`, until `deadline` of
 * performance.now(). What is not there, or not ours to see, counts nothing.
 */
export function diskUsage(
  directory: string,
  deadline: number,
  except: readonly string[] = [],
): DiskUsage {
  const waiting = [directory];
  let bytes = 0;
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (performance.now() > deadline) return { bytes, isComplete: false };
    for (const entry of entriesOf(path)) {
      const inside = `${path}/${entry.name}`;
      if (entry.isDirectory) {
        if (!except.includes(inside)) waiting.push(inside);
      } else if (entry.isFile) bytes += bytesOf(inside);
    }
  }
  return { bytes, isComplete: true };
}

function entriesOf(path: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(path)];
  } catch {
    return [];
  }
}

function bytesOf(path: string): number {
  try {
    const { blocks, size } = Deno.lstatSync(path);
    return blocks === null ? size : blocks * BLOCK_BYTES; // lazy files have holes
  } catch {
    return 0;
  }
}
