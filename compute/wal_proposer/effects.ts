/** What goes in and out of the proposer's decisions (proposer.ts). */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Member, MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";
import type { ProposerElected, VoteRequest } from "../../libs/safekeeper_protocol/messages.ts";
import type { Term, TermHistory } from "../../libs/safekeeper_protocol/term_history.ts";

/** What the driver has to do. */
export type Effect =
  | {
    readonly kind: "send";
    readonly peer: number;
    readonly message: VoteRequest | ProposerElected;
  }
  /** This safekeeper cannot be used now: close the connection (and connect again later). */
  | { readonly kind: "drop"; readonly peer: number; readonly why: string }
  /** Close the connection and open another one at once: it has to greet again. */
  | { readonly kind: "again"; readonly peer: number }
  /** A safekeeper has become a member: connect to it, as the peer of this number. */
  | { readonly kind: "join"; readonly peer: number; readonly member: Member }
  /** It is not a member any more: close the connection for good. */
  | { readonly kind: "leave"; readonly peer: number }
  /** Another membership is in force here. */
  | { readonly kind: "membership"; readonly membership: MembershipConfiguration }
  /** The campaign was lost: call `campaign` after a random pause. */
  | { readonly kind: "retry"; readonly campaigns: number }
  | { readonly kind: "elected" }
  /** This proposer must never commit again, and its Postgres must stop at once. */
  | { readonly kind: "deposed"; readonly why: string };

/** What an append covers; reused by the caller. */
export interface AppendRange {
  begin: Lsn;
  end: Lsn;
  commit: Lsn;
  truncate: Lsn;
}

/** A term won earlier, to go on with after the host was restarted. */
export interface WonTerm {
  readonly term: Term;
  readonly startLsn: Lsn;
  readonly history: TermHistory;
  /** No safekeeper can have WAL of this term beyond: Postgres had not flushed more. */
  readonly endLsnMax: Lsn;
}
