/**
 * "Did you mean ...?": the known name that a mistyped one is closest to. Pure.
 *
 * Closeness is counted in typing errors: a letter too many, too few or wrong, or two letters that
 * changed places (optimal string alignment distance).
 */

/** Typing errors beyond which a name is no longer the same name mistyped. */
function errorsAllowed(word: string): number {
  return word.length <= 3 ? 1 : word.length <= 7 ? 2 : 3;
}

/** How many typing errors lie between two words. */
function typingErrors(a: string, b: string): number {
  let older: number[] = [];
  let old = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      let errors = Math.min(old[j]! + 1, row[j - 1]! + 1, old[j - 1]! + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        errors = Math.min(errors, older[j - 2]! + 1);
      }
      row.push(errors);
    }
    older = old;
    old = row;
  }
  return old[b.length]!;
}

/** The known name that `word` is closest to, or undefined if it resembles none. */
export function closest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let fewest = errorsAllowed(word) + 1;
  for (const name of known) {
    const errors = typingErrors(word.toLowerCase(), name.toLowerCase());
    if (errors >= fewest || errors >= Math.max(word.length, name.length)) continue;
    fewest = errors;
    best = name;
  }
  if (best !== undefined || word.length < 3) return best;
  // The beginning of exactly one name, as people shorten words
  const longer = known.filter((name) => name.startsWith(word));
  return longer.length === 1 ? longer[0] : undefined;
}

/** For the end of a message: `; did you mean "main"?`, or nothing. */
export function didYouMean(word: string, known: readonly string[]): string {
  const name = closest(word, known);
  return name === undefined ? "" : `; did you mean "${name}"?`;
}
