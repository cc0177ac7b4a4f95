/**
 * Who listens on a TCP port, for the error message about a port that is taken.
 *
 * Linux only: /proc/net/tcp names the socket's inode, and one of /proc/<pid>/fd/* links to
 * "socket:[inode]". Other users' processes are not visible to an ordinary user; then the answer
 * stays general.
 */

/** State column of a listening socket in /proc/net/tcp (linux, include/net/tcp_states.h). */
const LISTEN = "0A";

/** Inodes of the sockets that listen on `port`, from the text of /proc/net/tcp or tcp6. */
export function listeningInodes(table: string, port: number): string[] {
  const suffix = ":" + port.toString(16).toUpperCase().padStart(4, "0");
  return table.split("\n").slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(suffix) && fields[3] === LISTEN)
    .map((fields) => fields[9]!);
}

function readTextOrEmpty(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

function holdsSocket(pid: string, links: Set<string>): boolean {
  try {
    for (const entry of Deno.readDirSync(`/proc/${pid}/fd`)) {
      try {
        if (links.has(Deno.readLinkSync(`/proc/${pid}/fd/${entry.name}`))) return true;
      } catch {
        // closed since it was listed
      }
    }
  } catch {
    // gone, or another user's
  }
  return false;
}

/** The command, and the directory that it works for: our daemons and Postgres name it by -D. */
function describe(pid: string): string {
  const command = readTextOrEmpty(`/proc/${pid}/comm`).trim();
  const args = readTextOrEmpty(`/proc/${pid}/cmdline`).split("\0");
  const directory = args[args.indexOf("-D") + 1];
  return args.includes("-D") && directory !== "" ? `${command} -D ${directory}` : command;
}

/**
 * Who listens on `port`: "process 123 (deno -D /srv/.neon/pageserver_1)", or "another process" if
 * that cannot be seen.
 */
export function portHolder(port: number): string {
  const unknown = "another process";
  if (Deno.build.os !== "linux") return unknown;
  const inodes = ["/proc/net/tcp", "/proc/net/tcp6"]
    .flatMap((path) => listeningInodes(readTextOrEmpty(path), port));
  if (inodes.length === 0) return unknown;
  const links = new Set(inodes.map((inode) => `socket:[${inode}]`));
  for (const entry of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(entry.name) || !holdsSocket(entry.name, links)) continue;
    return `process ${entry.name} (${describe(entry.name)})`;
  }
  return unknown;
}
