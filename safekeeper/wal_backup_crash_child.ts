/**
 * The process that wal_backup_crash_test.ts kills: a safekeeper with remote storage that writes,
 * uploads, removes, offloads and gets WAL back, for ever, and kills itself before the nth time that
 * it makes, renames, syncs or removes a file. Prints a line for each position that is acknowledged.
 *
 *   wal_backup_crash_child.ts <directory> <remote directory> <n>
 */
import { LocalDirectory } from "../libs/remote_storage/local_directory.ts";
import { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { SEGMENT, TestSafekeeper, TestWriter } from "./wal_backup_fixture.ts";

/** Written in one round: a third of a segment more than one, so that all alignments come. */
const ROUND_BYTES = SEGMENT * 4 / 3;

/** Kills this process before the nth step that changes files. */
function dieBefore(n: number): void {
  let steps = 0;
  const step = (name: string) => {
    if (++steps !== n) return;
    try {
      Deno.writeTextFileSync("/dev/stdout", `died before ${name}\n`);
    } finally {
      Deno.kill(Deno.pid, "SIGKILL"); // also when nobody listens any more
    }
  };
  const counted = <T extends object>(target: T, names: (keyof T & string)[]) => {
    for (const name of names) {
      const real = target[name] as (...args: unknown[]) => unknown;
      target[name] = function (this: unknown, ...args: unknown[]) {
        step(name);
        return real.apply(this, args);
      } as T[typeof name];
    }
  };
  counted(Deno, ["rename", "renameSync", "remove", "removeSync", "mkdirSync"]);
  counted(Deno.FsFile.prototype, ["sync", "syncSync", "syncDataSync", "truncateSync"]);
}

async function main(): Promise<void> {
  const [directory, remote, n] = Deno.args;
  dieBefore(Number(n));
  const storage = new RemoteStorage(new LocalDirectory(remote!, 0));
  const safekeeper = new TestSafekeeper(directory!, storage);
  const { timeline, backup } = safekeeper;
  for (;;) {
    const writer = await TestWriter.elect(safekeeper.address);
    for (let i = 0; i < 2; i++) {
      await writer.writeTo((writer.end + ROUND_BYTES) as Lsn);
      console.log(`acknowledged ${writer.end}`);
      await backup.tick();
      await safekeeper.consumed();
    }
    writer.close();
    while (timeline.proposers.size > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    for (let i = 0; i < 2; i++) await backup.tick();
    console.log(`offloaded ${timeline.isOffloaded}`);
  }
}

if (import.meta.main) await main();
