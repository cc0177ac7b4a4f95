/**
 * What writers know of their transfers, kept outside the database: which were acknowledged, which
 * have failed for sure, and of which nobody knows (the connection broke while COMMIT was under
 * way). A transfer of unknown outcome is there or not; what a look at a restarted database has
 * found once must stay so.
 */
import assert from "node:assert/strict";

type Outcome = "acknowledged" | "failed" | "unknown";

/** See the head of the file. */
export class TransferLog {
  readonly #ids: Record<Outcome, number[]> = { acknowledged: [], failed: [], unknown: [] };
  readonly #attempted: Set<number> = new Set();
  /** Transfers of unknown outcome that were looked for: whether they are there. */
  readonly #found: Map<number, boolean> = new Map();

  /** A transfer begins. */
  attempt(id: number): void {
    this.#attempted.add(id);
  }

  /** It has ended. */
  note(id: number, outcome: Outcome): void {
    this.#ids[outcome].push(id);
  }

  /** How many had this outcome. */
  count(outcome: Outcome): number {
    return this.#ids[outcome].length;
  }

  /** Of the transfers of unknown outcome, how many are there. */
  get foundPresent(): number {
    return [...this.#found.values()].filter((isThere) => isThere).length;
  }

  /**
   * Compares what `look` finds with what was known before it looked. No Postgres of an earlier
   * connection may be running any more. Returns how many transfers were compared.
   */
  async compare(look: () => Promise<number[]>): Promise<number> {
    const known = (["acknowledged", "failed", "unknown"] as const)
      .map((outcome) => this.#ids[outcome].slice());
    const [acknowledged, failed, unknown] = known as [number[], number[], number[]];
    const rows = await look();
    const present = new Set(rows);
    assert.equal(present.size, rows.length, "no transfer is there twice");
    const missing = acknowledged.filter((id) => !present.has(id));
    assert.deepEqual(missing, [], "every acknowledged transfer is there");
    assert.deepEqual(failed.filter((id) => present.has(id)), [], "no failed transfer is there");
    const invented = rows.filter((id) => !this.#attempted.has(id));
    assert.deepEqual(invented, [], "no transfer is there that nobody made");
    for (const id of unknown) {
      const isThere = present.has(id);
      const before = this.#found.get(id) ?? isThere;
      assert.equal(isThere, before, `transfer ${id} of unknown outcome stays as it was found`);
      this.#found.set(id, isThere);
    }
    return acknowledged.length + failed.length + unknown.length;
  }
}
