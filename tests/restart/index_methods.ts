/** Index methods other than btree: for each a table, an index, and a query that reads the index. */

/** One index method. */
interface IndexMethod {
  /** Also the table's name. */
  readonly method: string;
  readonly statements: readonly string[];
  readonly query: string;
}

const ROWS = "generate_series(1, 3000) i";

/** Those that come with PostgreSQL, and bloom, which logs generic records. */
export const INDEX_METHODS: readonly IndexMethod[] = [
  {
    method: "hash",
    statements: [
      "create table hash(id int primary key, v text)",
      "create index hash_v on hash using hash(v)",
      `insert into hash select i, i::text from ${ROWS}`,
    ],
    query: "select count(*)::int as n from hash where v = '7'",
  },
  {
    method: "gin",
    statements: [
      "create table gin(id int primary key, v int[])",
      "create index gin_v on gin using gin(v)",
      `insert into gin select i, array[i, i + 1] from ${ROWS}`,
      "vacuum gin",
    ],
    query: "select count(*)::int as n from gin where v @> array[7, 8]",
  },
  {
    method: "gist",
    statements: [
      "create table gist(id int primary key, v int4range)",
      "create index gist_v on gist using gist(v)",
      `insert into gist select i, int4range(i, i + 1) from ${ROWS}`,
    ],
    query: "select count(*)::int as n from gist where v @> 7",
  },
  {
    method: "spgist",
    statements: [
      "create table spgist(id int primary key, v text)",
      "create index spgist_v on spgist using spgist(v)",
      `insert into spgist select i, i::text from ${ROWS}`,
    ],
    query: "select count(*)::int as n from spgist where v = '7'",
  },
  {
    method: "brin",
    statements: [
      "create table brin(id int primary key, v int)",
      "create index brin_v on brin using brin(v) with (pages_per_range = 1, autosummarize = off)",
      `insert into brin select i, i from ${ROWS}`,
      "select brin_summarize_new_values('brin_v')",
    ],
    query: "select count(*)::int as n from brin where v = 7",
  },
  {
    method: "bloom",
    statements: [
      "create extension bloom",
      "create table bloom(id int primary key, v int)",
      "create index bloom_v on bloom using bloom(v)",
      `insert into bloom select i, i from ${ROWS}`,
    ],
    query: "select count(*)::int as n from bloom where v = 7",
  },
];
