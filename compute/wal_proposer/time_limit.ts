/** Waiting, but not for ever. */

/** Settles as `work` does, or throws what `late` makes after `ms`. The work itself goes on. */
export async function withinLimit<T>(
  work: Promise<T>,
  ms: number,
  late: () => Error,
): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(() => limit.reject(late()), ms);
  try {
    return await Promise.race([work, limit.promise]);
  } finally {
    clearTimeout(timer);
    work.catch(() => {}); // it may still fail, with nobody left to tell
  }
}
