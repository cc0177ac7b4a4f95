/** What a WAL proposer is told at its start, and what its election comes to. */
import type { MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";
import type { Term, TermHistory } from "../../libs/safekeeper_protocol/term_history.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import type { WonTerm } from "./effects.ts";
import type { SafekeeperAddress } from "./safekeeper_link.ts";

/** Whose WAL, and where it goes. */
export interface WalProposerOptions {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** PG_VERSION_NUM; safekeepers compare the major version. */
  readonly pgVersionNum: number;
  readonly walSegmentSize: number;
  readonly safekeepers: readonly SafekeeperAddress[];
  /** For safekeepers that want one. */
  readonly token?: TokenSource | undefined;
  /** Which of them make a quorum; without one a majority does. A newer one may follow. */
  readonly membership?: MembershipConfiguration;
  /** Called when a newer one is in force. */
  readonly onMembership?: (membership: MembershipConfiguration) => void;
  /** Go on with this term, streaming from `streamFrom`, instead of an election. */
  readonly resume?: WonTerm & { readonly streamFrom: Lsn };
  /** Called once; this proposer will not commit anything more. */
  readonly onDeposed: (why: string) => void;
}

/** A won election. */
export interface Election {
  readonly term: Term;
  readonly startLsn: Lsn;
  readonly history: TermHistory;
  /** Whose log goes to `startLsn`. */
  readonly donor: SafekeeperAddress;
}
