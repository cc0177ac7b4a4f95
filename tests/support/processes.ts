/** Processes as Linux shows them. */

/** The processes that work in `directory` or below, a removed one as well. */
export function processesIn(directory: string): number[] {
  const found: number[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (`${Deno.readLinkSync(`/proc/${name}/cwd`)}/`.startsWith(`${directory}/`)) {
        found.push(Number(name));
      }
    } catch {
      // ended meanwhile, or a kernel thread
    }
  }
  return found;
}
