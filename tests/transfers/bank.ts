/**
 * Accounts, and the transfers between them. A transfer changes two balances and writes a row, so
 * that from the rows follows what each balance must be: half a transfer shows, and so does one
 * that is there in one table and not in the other.
 */
import assert from "node:assert/strict";
import { PgClient } from "../../libs/pgwire/client.ts";

export const ACCOUNTS = 50;
const BALANCE = 1000;

/** Connects to an endpoint; the connection ends with `signal` at the latest. */
export function connectTo(port: number, signal?: AbortSignal): Promise<PgClient> {
  const parameters = { user: "cloud_admin", database: "postgres" };
  return PgClient.connect({ hostname: "127.0.0.1", port }, parameters, signal);
}

/** Makes the tables. */
export async function createBank(port: number): Promise<void> {
  const client = await connectTo(port);
  try {
    await client.query(
      `create table account(id int primary key, balance int not null check (balance >= 0));
       create table transfer(
         id bigint primary key, source int not null, target int not null, amount int not null);
       insert into account select id, ${BALANCE} from generate_series(1, ${ACCOUNTS}) id`,
    );
  } finally {
    client.close();
  }
}

/** One transfer. */
interface Transfer {
  readonly id: number;
  readonly source: number;
  readonly target: number;
  readonly amount: number;
}

/** SQL that does all of a transfer but its COMMIT. Accounts are locked in one order. */
export function transferSql({ id, source, target, amount }: Transfer): string {
  const changes = [[source, -amount], [target, amount]].toSorted(([a], [b]) => a! - b!)
    .map(([account, by]) => `update account set balance = balance + ${by} where id = ${account};`);
  return `begin; ${changes.join(" ")}
    insert into transfer values (${id}, ${source}, ${target}, ${amount})`;
}

const AUDIT = `
  with change as (
    select source as account, -amount as by from transfer
    union all select target, amount from transfer
  ), expected as (
    select id, ${BALANCE} + coalesce(sum(by), 0) as balance
    from account left join change on account = id group by id
  )
  select (select sum(balance) from account), (select count(*) from transfer),
    (select count(*) from account join expected using (id)
     where account.balance <> expected.balance)`;

/**
 * Looks at the whole bank in one snapshot. Throws unless the sum is what it always was and each
 * balance follows from the transfers; returns how many transfers there are.
 */
export async function audit(client: PgClient): Promise<number> {
  const { rows } = await client.query(AUDIT);
  const [sum, transfers, wrong] = rows[0]!.map(Number);
  assert.equal(sum, ACCOUNTS * BALANCE, "the sum of all balances");
  assert.equal(wrong, 0, "balances that do not follow from the transfers");
  return transfers!;
}

/** The ids of all transfers. */
export async function transferIds(client: PgClient): Promise<number[]> {
  const { rows } = await client.query("select id from transfer");
  return rows.map((row) => Number(row[0]));
}
