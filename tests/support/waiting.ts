/**
 * Waiting for what another process does, where there is nothing to wait on but a look: what a test
 * needs is never "some time has passed" but "this is so now".
 */

const LOOK_PAUSE_MS = 10;
const LIMIT_MS = 20_000;

/** Looks until `look` gives something; returns it. Throws when it stays away. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = performance.now() + LIMIT_MS;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    if (performance.now() > deadline) throw new Error(`Cannot see that ${what}: it is not so`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_PAUSE_MS));
  }
}

/** Longest wait within() has for one step of a test: under load, far more than any takes. */
const STEP_MS_MAX = 180_000;

/** What `step` gives. Throws when it takes so long that it hangs. */
export async function within<T>(what: string, step: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const hangs = () => late.reject(new Error(`Cannot go on: ${what} hangs`));
  const timer = setTimeout(hangs, STEP_MS_MAX);
  try {
    return await Promise.race([step, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
