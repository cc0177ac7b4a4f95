/** A small file system in memory, to be full: only root can mount one. */
import { writeAll } from "./durable.ts";

/** See the head of the file. */
export class SmallDisk implements AsyncDisposable {
  readonly path: string;

  readonly #isNew: boolean;

  private constructor(path: string, isNew: boolean) {
    this.path = path;
    this.#isNew = isNew;
  }

  /**
   * Mounts one at `path`, or at a new directory, perhaps with further options such as "noexec";
   * undefined if that is not allowed here.
   */
  static async mount(
    mebibytes: number,
    path?: string,
    ...options: string[]
  ): Promise<SmallDisk | undefined> {
    const place = path ?? Deno.makeTempDirSync({ prefix: "small_disk_" });
    const mount = new Deno.Command("mount", {
      args: [
        ...["-t", "tmpfs", "-o", [`size=${mebibytes}m`, "mode=755", ...options].join(",")],
        ...["tmpfs", place],
      ],
      stderr: "null",
    });
    try {
      if ((await mount.output()).success) return new SmallDisk(place, path === undefined);
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    }
    if (path === undefined) Deno.removeSync(place);
    return undefined;
  }

  get #filler(): string {
    return `${this.path}/filler`;
  }

  /** Takes all the space that is left. */
  fill(): void {
    using file = Deno.openSync(this.#filler, { write: true, create: true, append: true });
    for (const bytes of [new Uint8Array(1 << 20), new Uint8Array(4096)]) {
      try {
        for (;;) writeAll(file, bytes);
      } catch {
        // no room for one more of this size
      }
    }
  }

  /** Gives back what fill() has taken. */
  free(): void {
    Deno.removeSync(this.#filler);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Deno.Command("umount", { args: ["-l", this.path] }).output();
    if (this.#isNew) Deno.removeSync(this.path);
  }
}
