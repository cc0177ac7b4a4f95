/** Files that may be missing: what is not there is a value, every other error is thrown. */

/** What `action` returns, or undefined if the file that it wants is not there. */
export function ifThere<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}
