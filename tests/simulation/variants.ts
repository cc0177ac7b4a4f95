/**
 * Deliberately broken variants of the code under test, each a few words away from the real one.
 * The simulator must find every one of them within its number of seeds: that is the measure of
 * whether it would find the mistake if it were ours.
 *
 * A variant is made out of the source itself: the files that the simulator imports are copied to a
 * temporary directory, one of them with the edit, and imported from there. An edit whose text is
 * gone from the source fails, so that no variant silently becomes the real code.
 */
import { dirname, join, normalize, relative } from "node:path";
import type * as Simulator from "./simulate.ts";

const ROOT = normalize(join(import.meta.dirname!, "../.."));
const ENTRY = "tests/simulation/simulate.ts";
const IMPORT = /\bfrom\s*"(\.[^"]+)"/g;

/** One broken variant. */
interface Variant {
  readonly name: string;
  /** Within so many seeds, from 1 on, it must be caught. */
  readonly seeds: number;
  readonly file: string;
  /** Text of the file, and what stands there instead. */
  readonly edits: readonly (readonly [string, string])[];
}

/** The files that the simulator is made of, as paths from the root. */
function sources(): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (path: string) => {
    if (found.has(path)) return;
    const text = Deno.readTextFileSync(join(ROOT, path));
    found.set(path, text);
    for (const [, specifier] of text.matchAll(IMPORT)) {
      visit(relative(ROOT, join(ROOT, dirname(path), specifier!)));
    }
  };
  visit(ENTRY);
  return found;
}

/** Loads the simulator over a broken variant; the copies are in `directory`. */
export async function loadVariant(directory: string, variant: Variant): Promise<typeof Simulator> {
  const files = sources();
  let text = files.get(variant.file);
  if (text === undefined) throw new Error(`the simulator does not use ${variant.file}`);
  for (const [from, to] of variant.edits) {
    if (text.split(from).length !== 2) {
      throw new Error(`variant "${variant.name}": ${variant.file} has not once "${from}"`);
    }
    text = text.replace(from, () => to);
  }
  files.set(variant.file, text);
  const root = join(directory, variant.name.replaceAll(/\W+/g, "_"));
  for (const [path, content] of files) {
    Deno.mkdirSync(join(root, dirname(path)), { recursive: true });
    Deno.writeTextFileSync(join(root, path), content);
  }
  return await import(`file://${join(root, ENTRY)}`);
}

const ACCEPTOR = "safekeeper/acceptor.ts";
const CORE = "safekeeper/timeline_core.ts";
const POSITIONS = "safekeeper/wal_positions.ts";
const PROPOSER = "compute/wal_proposer/proposer.ts";
const PEERS = "compute/wal_proposer/peers.ts";
const CHANGE = "libs/safekeeper_protocol/membership_change.ts";
const QUORUM = "compute/wal_proposer/quorum.ts";
const HISTORY = "libs/safekeeper_protocol/term_history.ts";

/** All of them. */
export const VARIANTS: readonly Variant[] = [
  {
    name: "the vote is not persisted",
    seeds: 300,
    file: ACCEPTOR,
    edits: [[
      "if (voteGiven) effects.push(this.#persist({ term }));",
      "if (voteGiven) this.#state = { ...this.#state, term };",
    ]],
  },
  {
    name: "the vote is answered before it is persisted",
    seeds: 300,
    file: ACCEPTOR,
    edits: [
      ["if (voteGiven) effects.push(this.#persist({ term }));", ""],
      [
        "    return effects;\n  }\n\n  #elected(",
        "    if (voteGiven) effects.push(this.#persist({ term }));\n" +
        "    return effects;\n  }\n\n  #elected(",
      ],
    ],
  },
  {
    name: "a vote is about WAL that is not flushed",
    seeds: 300,
    file: ACCEPTOR,
    edits: [["effects.push(...this.#flushPending());", ""]],
  },
  {
    name: "a second vote in the same term",
    seeds: 300,
    file: ACCEPTOR,
    edits: [["this.#state.term < message.term;", "this.#state.term <= message.term;"]],
  },
  {
    name: "acknowledged before it is synced",
    seeds: 300,
    file: CORE,
    edits: [[
      "if (this.#disk.dirty) this.#awaiting.add(proposer!);\n        else this.#answers",
      "this.acceptor.flushed(this.#disk.recordLsn);\n        this.#answers",
    ]],
  },
  {
    name: "truncation below the commit LSN",
    seeds: 300,
    file: ACCEPTOR,
    edits: [
      ['{ kind: "truncate", lsn: start }', '{ kind: "truncate", lsn: (start - 8) as Lsn }'],
      ['assert(lsn >= this.#commitLsn, "committed WAL is never truncated");', ""],
    ],
  },
  {
    name: "commits of an older term are counted",
    seeds: 7000, // it takes 830 on average
    file: PROPOSER,
    edits: [
      ["if (flushLsn < this.#startLsn || flushLsn <=", "if (flushLsn <="],
      ['assert(reached >= this.#startLsn, "only positions of this term are committed");', ""],
    ],
  },
  {
    name: "the history of a vote is not cut",
    seeds: 300,
    file: ACCEPTOR,
    edits: [[
      "termHistory: termHistoryUpTo(this.#state.termHistory, flushLsn),",
      "termHistory: this.#state.termHistory,",
    ]],
  },
  {
    name: "logs that part are compared by length",
    seeds: 1500,
    file: HISTORY,
    edits: [["acceptor[last + 1]?.lsn ?? acceptorFlushLsn", "acceptorFlushLsn"]],
  },
  {
    name: "the donor is the longest log",
    seeds: 1500,
    file: PEERS,
    edits: [[
      "termA > termB || (termA === termB && a.flushLsn > b.flushLsn)",
      "a.flushLsn > b.flushLsn || (termA > termB && a.flushLsn === b.flushLsn)",
    ]],
  },
  {
    name: "the WAL of an older term is taken",
    seeds: 300,
    file: ACCEPTOR,
    edits: [
      ["if (message.term < this.#state.term) {\n      return [{", "if (false) {\n      return [{"],
      ["if (!this.follows(message.term)) {", "if (this.#state.term < message.term) {"],
    ],
  },
  {
    name: "half of the safekeepers are a quorum",
    seeds: 300,
    file: QUORUM,
    edits: [["Math.floor(members / 2) + 1", "Math.max(1, Math.floor(members / 2))"]],
  },
  {
    name: "a sync counts over a truncation",
    seeds: 300,
    file: POSITIONS,
    edits: [["if (ticket.epoch !== this.#epoch) return;", ""]],
  },
  {
    name: "a sync covers what was written during it",
    seeds: 300,
    file: POSITIONS,
    edits: [["maxLsn(this.#flushLsn, ticket.recordLsn)", "this.#recordLsn"]],
  },
  {
    name: "a later sync counts for what an earlier failed one covered",
    seeds: 300,
    file: POSITIONS,
    edits: [[
      '    this.#endAt(this.#flushLsn);\n    this.#unclean = "an earlier sync failed";\n',
      "",
    ]],
  },
  {
    name: "a sync under way counts for what another failed one covered",
    seeds: 1500,
    file: POSITIONS,
    edits: [["    this.#endAt(this.#flushLsn);\n", "    this.#writeLsn = this.#flushLsn;\n"]],
  },
  {
    name: "the acceptor keeps what a failed sync took back",
    seeds: 300,
    file: CORE,
    edits: [["this.#covered = undefined;\n    this.#follow();", "this.#covered = undefined;"]],
  },
  {
    name: "WAL is written behind an end that was not cleaned",
    seeds: 200_000,
    file: POSITIONS,
    edits: [[' = "the WAL was not truncated since the start";', ";"]],
  },
  {
    name: "the history is persisted before the truncation",
    seeds: 1500,
    file: ACCEPTOR,
    edits: [
      ['    effects.push({ kind: "truncate", lsn: start });\n', ""],
      [
        "this.#persist({ term: message.term, termHistory: message.termHistory }));",
        "this.#persist({ term: message.term, termHistory: message.termHistory }), " +
        '{ kind: "truncate", lsn: start });',
      ],
    ],
  },
  {
    name: "the commit LSN passes what is durable",
    seeds: 300,
    file: ACCEPTOR,
    edits: [["minLsn(this.#proposerCommitLsn, this.#flushLsn)", "this.#proposerCommitLsn"]],
  },
  {
    name: "votes of a lost campaign are counted",
    seeds: 20000,
    file: PROPOSER,
    edits: [
      [
        'if (p.phase !== "voting" || vote.term < this.#term) return;',
        'if (p.phase !== "voting") return;',
      ],
    ],
  },
  {
    name: "a failed write leaves the end clean",
    seeds: 20000,
    file: POSITIONS,
    edits: [['this.#unclean = "an earlier write failed";', ""]],
  },
  {
    name: "a stranded term is never given up",
    seeds: 1500,
    file: PROPOSER,
    edits: [[
      "if (!this.#quorum.reached((i) => this.isStreaming(i))) return false;",
      "return false;",
    ]],
  },
  {
    name: "a message of an older generation is taken",
    seeds: 1500,
    file: ACCEPTOR,
    edits: [["if (generation === mine) return;", "if (generation <= mine) return;"]],
  },
  {
    name: "a joint membership needs one majority",
    seeds: 300,
    file: QUORUM,
    edits: [
      ["return this.#lists.every((list) => {", "return this.#lists.some((list) => {"],
      ["let reached = Infinity;", "let reached = 0;"],
      ["reached = Math.min(reached,", "reached = Math.max(reached,"],
    ],
  },
  {
    name: "new members come into force before they have what is committed",
    seeds: 3000,
    file: CHANGE,
    edits: [["&& !isNewer(this.#goal, log);", ";"]],
  },
  {
    name: "the term is not carried to new members",
    seeds: 20_000,
    file: CHANGE,
    edits: [
      ["log.term < this.#goal.term;", "false;"],
      ["return log.term >= this.#goal.term && !isNewer", "return !isNewer"],
    ],
  },
  {
    name: "new members come into force before the old ones know of it",
    seeds: 3000,
    file: CHANGE,
    edits: [
      [
        "if (this.#goal !== undefined || !isMajority(this.from, (other) => old.includes(other))) return;",
        "if (this.#goal !== undefined || old.length === 0) return;",
      ],
      [
        "return isMajority(this.from, (id) => this.#joint.has(id)) &&\n      isMajority(",
        "return isMajority(",
      ],
    ],
  },
  {
    name: "a change of members leaves WAL to be acknowledged behind it",
    seeds: 3000,
    file: ACCEPTOR,
    edits: [["const pending = this.#flushPending();", "const pending: Effect[] = [];"]],
  },
  {
    name: "acknowledgements outlive a change of members",
    seeds: 20_000,
    file: PEERS,
    edits: [[
      "this.flushed = new Float64Array(this.all.length);",
      "const flushed = new Float64Array(this.all.length);\n" +
      "    flushed.set(this.flushed);\n    this.flushed = flushed;",
    ]],
  },
  {
    name: "the quorum stays as it was when the members change",
    seeds: 3000,
    file: PEERS,
    edits: [["    this.#quorum = new Quorum(this.all.map", "    void new Quorum(this.all.map"]],
  },
  {
    name: "the commit LSN of a peer of another term is believed",
    seeds: 1500,
    file: ACCEPTOR,
    edits: [["if (lastLogTerm !== this.lastLogTerm) return;", ""]],
  },
  {
    name: "a peer is copied from at another place than the logs part",
    seeds: 1500,
    file: "safekeeper/peer_recovery.ts",
    edits: [["startStreamingAt: common?.lsn ??", "startStreamingAt: flushLsn ??"]],
  },
  {
    name: "a peer that fails is tried for ever",
    seeds: 3000,
    file: "safekeeper/peer_recovery.ts",
    edits: [["    this.#failed.add(safekeeperId);\n", ""]],
  },
];
