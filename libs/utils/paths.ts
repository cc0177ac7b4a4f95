/**
 * Paths of POSIX, for programs that have to start at once: loading the first module of Node's
 * ("node:path", say) takes 5 ms.
 */

/** The parts that are not empty, with one slash between each; "." and ".." stay. */
export function join(...parts: readonly string[]): string {
  return parts.filter((part) => part !== "").join("/").replaceAll(/\/{2,}/g, "/");
}

/** Everything in front of the last name: "/a" of "/a/b" and of "/a/b/", "." of a name alone. */
export function dirname(path: string): string {
  const [, parent, slashes] = /^(.*?)(\/*)[^/]*\/*$/s.exec(path)!;
  if (parent !== "") return parent!;
  return slashes === "" ? "." : "/";
}

/** Whether it does not depend on the current directory. */
export function isAbsolute(path: string): boolean {
  return path.startsWith("/");
}
