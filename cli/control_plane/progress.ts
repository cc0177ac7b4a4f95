/** How long work reports on itself; commands show it on standard error, tests ignore it. */
export interface Progress {
  /** `received` of `total` bytes so far; total is 0 when unknown. */
  bytes(what: string, received: number, total: number): void;
  /** A step that takes a while begins. */
  step(what: string): void;
  /** Something worth a line was finished. */
  done(what: string): void;
}

/** Says nothing. */
export const silentProgress: Progress = { bytes() {}, step() {}, done() {} };
