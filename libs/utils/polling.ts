/** Looking again after a pause that grows: for what nobody tells. */

/** How often is looked, and for how long. */
export interface Looks {
  /** The first pause, and the longest one. */
  readonly pauseMs: readonly [first: number, longest: number];
  /** After that long there is no other look. */
  readonly limitMs: number;
}

const GROWTH = 1.5;

/** Calls `look` until it gives a value; undefined when the time is over. It looks at least once. */
export async function poll<T>(
  { pauseMs: [first, longest], limitMs }: Looks,
  look: () => T | undefined | Promise<T | undefined>,
): Promise<T | undefined> {
  const deadline = performance.now() + limitMs;
  for (let pause = first;; pause = Math.min(pause * GROWTH, longest)) {
    const value = await look();
    if (value !== undefined || performance.now() >= deadline) return value;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Does `work` again while it throws what passes; throws that when the time is over. */
export async function retry<T>(
  looks: Looks,
  passes: (thrown: unknown) => boolean,
  work: () => Promise<T>,
): Promise<T> {
  let last: unknown;
  const done = await poll(looks, async () => {
    try {
      return { value: await work() };
    } catch (thrown) {
      if (!passes(thrown)) throw thrown;
      last = thrown;
      return undefined;
    }
  });
  if (done === undefined) throw last;
  return done.value;
}
