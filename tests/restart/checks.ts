/**
 * What PostgreSQL itself can check about a database: every heap with its visibility map and TOAST
 * table, every btree index with its heap.
 */
import assert from "node:assert/strict";
import type { Sql } from "../harness.ts";

/** Complains about anything that amcheck or pg_visibility find; returns how many relations. */
export async function checkStructure(sql: Sql): Promise<number> {
  await sql`create extension if not exists amcheck`;
  await sql`create extension if not exists pg_visibility`;
  const heaps = await sql`
    select oid::regclass::text as name, bad from pg_class c,
      lateral (select string_agg(format('%s/%s: %s', blkno, offnum, msg), '; ') as bad
        from verify_heapam(c.oid, check_toast := true)) checked
    where relkind in ('r', 'm', 't', 'S') and relpersistence <> 't'`;
  assert.deepEqual(heaps.filter((heap) => heap["bad"] !== null), [], "verify_heapam");
  const maps = await sql`
    select oid::regclass::text as name from pg_class c
    where relkind in ('r', 'm', 't') and relpersistence <> 't' and (
      exists (select from pg_check_visible(c.oid)) or exists (select from pg_check_frozen(c.oid)))`;
  assert.deepEqual([...maps], [], "pg_visibility");
  const indexes = await sql`
    select c.oid::regclass::text, bt_index_parent_check(c.oid, true, true, i.indisunique)
    from pg_class c join pg_index i on i.indexrelid = c.oid join pg_am a on a.oid = c.relam
    where a.amname = 'btree' and relpersistence <> 't' and c.relkind = 'i'`;
  return heaps.length + indexes.length;
}
