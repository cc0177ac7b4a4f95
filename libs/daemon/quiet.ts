/**
 * Memory that work leaves behind is given back when there is no work.
 *
 * V8 collects garbage when it needs room. A daemon that has just started, or that was busy, needs
 * none, and would hold what its start or its last load has made of the heap for minutes, or for
 * good. So after some seconds without work it gives back buffers and collects once, which takes
 * about 25 ms, and not again before it has worked or its heap has grown. After a minute it also
 * gives up what it keeps only to be faster, such as pages: who comes back then waits a little
 * longer for the first of them.
 */

/** Time between two looks at what the process has done. */
const LOOK_MS = 1000;
/** Looks without work after which garbage is collected, and after which a daemon rests. */
const QUIET_LOOKS = 5;
const REST_LOOKS = 60;
/** Share of a processor that is work; at rest a daemon takes a tenth of it. */
const WORK_SHARE = 0.02;
/** Heap above that of the last collection that is worth one without any work. */
const GROWN_BYTES = 4 * 1024 * 1024;
/** With twice as much a collection takes 300 ms, and somebody may come: V8 does it in slices. */
const HEAP_BYTES_MAX = 48 * 1024 * 1024;

/** What is due: nothing, a collection, or one after what is only kept to be faster has gone. */
type Due = "nothing" | "collection" | "rest";

/** Tells what is due, from what is seen once in a while. */
export class QuietTimes {
  #quietLooks = 0;
  /** A start is work. */
  #hasWorked = true;
  #hasRested = false;
  #heapBytes = Infinity;

  /** What to do now, given the share of a processor used since the last look. */
  look(share: number, heapBytes: number): Due {
    if (share >= WORK_SHARE) {
      this.#hasWorked = true;
      this.#hasRested = false;
      this.#quietLooks = 0;
      return "nothing";
    }
    this.#quietLooks++;
    if (this.#quietLooks >= REST_LOOKS && !this.#hasRested) {
      this.#hasRested = true;
      return "rest";
    }
    if (this.#quietLooks < QUIET_LOOKS) return "nothing";
    return this.#hasWorked || heapBytes > this.#heapBytes + GROWN_BYTES ? "collection" : "nothing";
  }

  /** Notes a collection, and the heap after it. */
  collected(heapBytes: number): void {
    this.#hasWorked = false;
    this.#heapBytes = heapBytes;
  }
}

/** V8's own function, where the flag --expose-gc is set. */
type Collect = (options: { type: "major"; flavor: "last-resort" }) => void;

/**
 * From now on collects in quiet times, before which it calls `quiet`, and `rest` in long ones. Does
 * nothing in a process without --expose-gc.
 */
export function collectInQuietTimes(daemon: { quiet?(): void; rest?(): void }): void {
  const { gc } = globalThis as { gc?: Collect };
  if (gc === undefined) return;
  const times = new QuietTimes();
  const cpuMs = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const heapBytes = () => Deno.memoryUsage().heapTotal;
  let lastMs = performance.now();
  let lastCpuMs = cpuMs();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    const nowCpuMs = cpuMs();
    const share = (nowCpuMs - lastCpuMs) / Math.max(nowMs - lastMs, 1);
    const due = times.look(share, heapBytes());
    if (due === "rest") daemon.rest?.();
    if (due !== "nothing") {
      daemon.quiet?.();
      if (heapBytes() <= HEAP_BYTES_MAX) gc({ type: "major", flavor: "last-resort" });
      times.collected(heapBytes());
    }
    lastMs = performance.now();
    lastCpuMs = cpuMs(); // a collection is no work
  }, LOOK_MS);
  Deno.unrefTimer(timer);
}
