/** Seeded randomness for tests: the seed is printed, and NEON_TEST_SEED repeats a run. */

/** Small, fast and good enough to choose victims and moments (mulberry32). */
export class SeededRandom {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** A number in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** An integer in [min, max]. */
  between(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  /** A generator of its own for somebody who draws at moments that do not repeat. */
  fork(): SeededRandom {
    return new SeededRandom(this.between(0, 0xffffffff));
  }

  /** One of several. */
  pick<T>(choices: readonly T[]): T {
    return choices[this.between(0, choices.length - 1)]!;
  }
}

/** A generator with the seed of NEON_TEST_SEED, or a new one, which is printed. */
export function seededRandom(what: string): SeededRandom {
  const given = Deno.env.get("NEON_TEST_SEED");
  const seed = given === undefined ? crypto.getRandomValues(new Uint32Array(1))[0]! : Number(given);
  console.log(`${what}: NEON_TEST_SEED=${seed}`);
  return new SeededRandom(seed);
}
