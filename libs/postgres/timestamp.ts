/** TimestampTz: microseconds since 2000-01-01 UTC, below 2^53 for the next two centuries. */

const EPOCH_MS = 946684800000;
const EPOCH_NANOSECONDS = BigInt(EPOCH_MS) * 1_000_000n;

/** The timestamp of a moment; what is finer than a microsecond is cut off. */
export function instantToTimestamp(instant: Temporal.Instant): number {
  const nanoseconds = instant.epochNanoseconds - EPOCH_NANOSECONDS;
  const micros = nanoseconds / 1000n;
  return Number(nanoseconds < micros * 1000n ? micros - 1n : micros);
}

/** RFC 3339 in UTC with microseconds. */
export function formatTimestamp(micros: number): string {
  const millis = Math.floor(micros / 1000);
  const instant = Temporal.Instant.fromEpochMilliseconds(millis + EPOCH_MS)
    .add({ microseconds: micros - millis * 1000 });
  return instant.toString({ fractionalSecondDigits: 6 });
}
