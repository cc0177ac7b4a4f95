/**
 * Thrown by a read in place of its result, where the reader allows it (Reconstruction.mayPostpone):
 * what it needs is on its way from the disk to memory. Then others are served meanwhile, and the
 * read is repeated.
 */
export class Postponed extends Error {
  /** Resolves when it has come, or cannot: the read will tell. */
  constructor(readonly ready: Promise<void>) {
    super("What is to be read is on its way from the disk");
    this.name = "Postponed";
  }
}
