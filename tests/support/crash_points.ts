/**
 * Looking at what is left behind every step that a program took with its files: once as a stopped
 * process and twice as lost power leave it; and, where the program is started again on what a
 * stopped process left, what losing power right then leaves of that.
 */
import { setImmediate } from "node:timers/promises";
import { FileRecorder, type Note } from "./file_recorder.ts";
import { PlayedDisk, SURVIVALS } from "./played_disk.ts";

/** What is done with a directory that a crash has left. */
interface CrashChecks<Seen> {
  /**
   * Opens `directory`, which is as of the first `played` notes, and fails if anything is missing
   * that was promised up to there. Returns what it promised to others.
   */
  check(directory: string, played: number): Promise<Seen> | Seen;
  /** Opens `directory` and fails if anything is missing that check() has returned. */
  recheck(directory: string, seen: Seen): Promise<unknown> | unknown;
}

interface CrashPoints {
  /** The directory `<scratch>/left` is made anew for each check. */
  readonly scratch: string;
  readonly chance: () => boolean;
  /** Whether to look behind the next step, where there are too many; all of them by default. */
  readonly isWanted?: () => boolean;
  /** Of every so many points, one is also looked at after a restart. */
  readonly restartEvery: number;
}

/** Looks behind every note; returns how many directories were looked at. */
export async function atEveryStep<Seen>(
  notes: readonly Note[],
  { scratch, chance, isWanted = () => true, restartEvery }: CrashPoints,
  { check, recheck }: CrashChecks<Seen>,
): Promise<number> {
  const disk = new PlayedDisk();
  const left = `${scratch}/left`;
  const firstHandle = notes.length; // above all of theirs
  let points = 0;
  let steps = 0;
  for (const [i, note] of notes.entries()) {
    disk.play(note);
    if (!isWanted()) continue;
    const where = `behind step ${i}, ${describe(note)}`;
    for (const survival of SURVIVALS) {
      await within(left, `${survival} survives ${where}`, () => {
        disk.leave(left, survival, chance);
        return check(left, i + 1);
      });
      points++;
    }
    if (steps++ % restartEvery !== 0) continue;
    const again = disk.fork();
    const seen = await within(left, `restart ${where}`, async () => {
      disk.leave(left, "everything", chance);
      const recorder = new FileRecorder(left, firstHandle);
      const promised = await recorder.during(() => check(left, i + 1));
      for (const one of recorder.notes) again.play(one);
      return promised;
    });
    await within(left, `power loss after a restart ${where}`, () => {
      again.leave(left, "nothing", chance);
      return recheck(left, seen);
    });
    points++;
  }
  return points;
}

function describe(note: Note): string {
  const path = "path" in note ? note.path : "to" in note ? note.to : "";
  return `${note.kind} ${path}`.trimEnd();
}

async function within<T>(directory: string, what: string, work: () => Promise<T> | T): Promise<T> {
  Deno.mkdirSync(directory);
  try {
    return await work();
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Error(`${what}: ${why}`, { cause: thrown });
  } finally {
    Deno.removeSync(directory, { recursive: true });
    await setImmediate(); // what works in the background ends, and closes its files
  }
}
