import assert from "node:assert/strict";
import { displayWidth, tableLines } from "./output.ts";
import { resultLines } from "./sql_client.ts";
import { type ListedTimeline, treeLines } from "./timeline_tree.ts";

Deno.test("tableLines() prints a borderless table", () => {
  assert.deepEqual(
    tableLines(["ENDPOINT", "ADDRESS", "STATUS"], [
      ["main", "127.0.0.1:55432", "running"],
      ["migration_check", "127.0.0.1:55433", "stopped"],
    ]),
    [
      " ENDPOINT         ADDRESS          STATUS",
      " main             127.0.0.1:55432  running",
      " migration_check  127.0.0.1:55433  stopped",
    ],
  );
});

Deno.test("displayWidth() counts columns, not code units", () => {
  assert.equal(displayWidth("abc"), 3);
  assert.equal(displayWidth("日本"), 4);
  assert.equal(displayWidth("e\u0301"), 1);
});

function timeline(id: string, parent: string | null, name: string | null = id): ListedTimeline {
  return {
    branch_name: name,
    timeline_id: id,
    ancestor_timeline_id: parent,
    ancestor_lsn: parent === null ? null : "0/16F9A00",
    last_record_lsn: "0/16F9A00",
  };
}

Deno.test("treeLines() draws branches of branches", () => {
  const tree = treeLines([
    timeline("c", "a"),
    timeline("a", null, "main"),
    timeline("b", "a"),
    timeline("d", "b", null),
    timeline("e", "c"),
    timeline("f", null),
  ]);
  assert.deepEqual(tree, [
    "(L) main [a]",
    "(L) ┣━ @0/16F9A00: b [b]",
    "(L) ┃  ┗━ @0/16F9A00: _no_name_ [d]",
    "(L) ┗━ @0/16F9A00: c [c]",
    "(L)    ┗━ @0/16F9A00: e [e]",
    "(L) f [f]",
  ]);
});

Deno.test("resultLines() takes as many rows as there are", () => {
  const columns = [{ name: "n", typeOid: 23 }];
  const rows = Array.from({ length: 300_000 }, (_, i) => [`${i}`]);
  const lines = resultLines({ columns, rows });
  assert.equal(lines.length, rows.length + 4);
  assert.deepEqual(lines.slice(0, 3), ["   n", "--------", "      0"]);
});

Deno.test("resultLines() aligns as psql does", () => {
  const columns = [{ name: "id", typeOid: 23 }, { name: "name", typeOid: 25 }];
  const rows = [["1", "one"], ["20", null]];
  assert.deepEqual(resultLines({ columns, rows }), [
    " id | name",
    "----+------",
    "  1 | one",
    " 20 |",
    "(2 rows)",
    "",
  ]);
});
