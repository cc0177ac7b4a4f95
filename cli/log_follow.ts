/**
 * Follows log files: what is added to them is shown as soon as the system says that a file changed.
 * Files that are begun anew, and those of endpoints that are created meanwhile, are followed, too.
 */
import { dirname } from "node:path";
import { entriesOf, inOrder, type LogEntry } from "./log_entries.ts";
import { LogFile } from "./log_file.ts";
import type { LogSource } from "./log_sources.ts";

/** The files that are followed, by path. */
export class LogFollower implements Disposable {
  readonly #files = new Map<string, { source: LogSource; file: LogFile }>();
  readonly #watchers = new Map<string, Deno.FsWatcher>();
  readonly #ended = Promise.withResolvers<void>();

  /** The last `count` messages of all `sources` together; follow() goes on behind them. */
  tail(sources: readonly LogSource[], count: number): LogEntry[] {
    const files = sources.map((source) => {
      const isEnough = (lines: string[]) => entriesOf(source.name, lines).length > count;
      return entriesOf(source.name, this.#add(source).tail(isEnough));
    });
    return count === 0 ? [] : inOrder(files).slice(-count);
  }

  #add(source: LogSource): LogFile {
    const known = this.#files.get(source.path);
    if (known !== undefined) return known.file;
    const file = new LogFile(source.path);
    this.#files.set(source.path, { source, file });
    return file;
  }

  /**
   * Shows what is added from now on, until this object is disposed of. `sources` is asked again
   * whenever one of `directories` changes.
   */
  async follow(
    sources: () => LogSource[],
    directories: readonly string[],
    show: (entries: LogEntry[]) => void,
  ): Promise<void> {
    const look = (paths: Iterable<string>) => {
      const files = [...paths].flatMap((path) => this.#files.get(path) ?? []);
      const added = files.map(({ source, file }) => entriesOf(source.name, file.added()));
      show(inOrder(added));
    };
    const watch = (directory: string) => {
      if (this.#watchers.has(directory)) return;
      let watcher: Deno.FsWatcher;
      try {
        watcher = Deno.watchFs(directory, { recursive: false });
      } catch (thrown) {
        if (thrown instanceof Deno.errors.NotFound) return; // seen when it is made
        throw thrown;
      }
      this.#watchers.set(directory, watcher);
      (async () => {
        for await (const event of watcher) {
          if (directories.includes(directory)) rescan();
          look(event.paths);
        }
      })().catch(this.#ended.reject);
    };
    const rescan = () => {
      for (const directory of directories) watch(directory);
      const before = new Set(this.#files.keys());
      for (const source of sources()) {
        this.#add(source);
        watch(dirname(source.path));
      }
      look([...this.#files.keys()].filter((path) => !before.has(path)));
    };
    rescan();
    look(this.#files.keys()); // what came between tail() and the watchers
    await this.#ended.promise;
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    for (const { file } of this.#files.values()) file.close();
    this.#ended.resolve();
  }
}
