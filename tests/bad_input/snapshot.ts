/**
 * What a command that fails must leave as it was: the names of everything in a state directory, and
 * the contents of what only changes on request.
 */
import { createHash } from "node:crypto";

/** Files and directories that change by themselves: logs, layers being written, PostgreSQL's own. */
const RESTLESS = /\.(log|pid|pid\.guard|sock|reserve|___temp)$|\/(ready|ready_data|pgdata[^/]*)$/;
/** Whose contents only a command changes. */
const STABLE = /^\/config$|^\/(tenants|endpoints|creating)\/|\.toml$|\.id$/;

/** Paths with hashes, one a line. */
export function snapshot(repoDir: string): string {
  const lines: string[] = [];
  const walk = (below: string) => {
    for (const entry of Deno.readDirSync(repoDir + below)) {
      const path = `${below}/${entry.name}`;
      if (RESTLESS.test(path)) continue;
      if (entry.isDirectory) {
        lines.push(`${path}/`);
        walk(path);
      } else if (STABLE.test(path)) {
        const hash = createHash("sha256").update(Deno.readFileSync(repoDir + path)).digest("hex");
        lines.push(`${path} ${hash}`);
      } else lines.push(path);
    }
  };
  walk("");
  return lines.sort().join("\n");
}
