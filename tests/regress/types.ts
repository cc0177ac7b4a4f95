/** What the parts of a regression run tell each other. */
import type { HostUser } from "../../cli/control_plane/host_user.ts";
import type { Server } from "./client_programs.ts";

/** Which of the suites. */
export type SuiteName = "regress" | "isolation" | "contrib";

/** Where PostgreSQL's files are. */
export interface SuiteFiles {
  /** A source tree in which src/test/regress and src/test/isolation have been built. */
  readonly source: string;
  /** psql and the other client programs of that build. */
  readonly binDir: string;
  readonly user: HostUser | undefined;
}

/** What to run. */
export interface SuiteRequest {
  readonly suite: SuiteName;
  readonly server: Server;
  /** A new directory for the copy, the output and the results. */
  readonly directory: string;
  /** Tests by name (of contrib: modules), in this order, instead of the schedule. */
  readonly tests?: readonly string[];
  /** Tests that are left out of the schedule. */
  readonly skip: readonly string[];
  /** Called with each line of output. */
  readonly line: (text: string) => void;
}

/** How one test ended. */
export interface TestOutcome {
  readonly name: string;
  readonly passed: boolean;
  readonly milliseconds: number;
  /** Where its output differs from what is expected; empty if it passed. */
  readonly diff: string;
}

/** One suite's outcomes. */
export interface SuiteRun {
  readonly suite: SuiteName;
  /** From 1 on. */
  readonly round: number;
  readonly tests: readonly TestOutcome[];
  readonly seconds: number;
}
