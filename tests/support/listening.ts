/** Which sockets processes listen on, as Linux shows them. */

/** State column of a listening TCP socket (linux, include/net/tcp_states.h: TCP_LISTEN). */
const LISTENING = "0A";
/** UDP sockets that are bound and not connected (TCP_CLOSE). */
const BOUND = "07";

/** The numeric host and port that an entry such as "0100007F:D888" stands for. */
function addressOf(text: string): string {
  const [host, port] = text.split(":") as [string, string];
  // Words of four bytes, each in the machine's order (little-endian on all that we run on)
  const bytes = (host.match(/.{8}/g) ?? [])
    .flatMap((word) => word.match(/../g)!.reverse().map((byte) => Number.parseInt(byte, 16)));
  const name = bytes.length === 4
    ? bytes.join(".")
    : `[${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}]`;
  return `${name}:${Number.parseInt(port, 16)}`;
}

function socketInodes(pid: number): Set<string> {
  const inodes = new Set<string>();
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      try {
        const [, inode] = /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`)) ??
          [];
        if (inode !== undefined) inodes.add(inode);
      } catch {
        // closed since it was listed
      }
    }
  } catch {
    // ended since it was listed
  }
  return inodes;
}

/** What these processes listen on, TCP and UDP, IPv4 and IPv6, as host:port; sorted, once each. */
export function listeningAddresses(pids: readonly number[]): string[] {
  const own = new Set(pids.flatMap((pid) => [...socketInodes(pid)]));
  const found = new Set<string>();
  for (const [table, state] of [["tcp", LISTENING], ["udp", BOUND]] as const) {
    for (const path of [`/proc/net/${table}`, `/proc/net/${table}6`]) {
      for (const line of Deno.readTextFileSync(path).trimEnd().split("\n").slice(1)) {
        const fields = line.trim().split(/\s+/);
        if (fields[3] === state && own.has(fields[9]!)) found.add(addressOf(fields[1]!));
      }
    }
  }
  return [...found].sort();
}
