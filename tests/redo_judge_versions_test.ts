/**
 * Redo of the other PostgreSQL versions judged by PostgreSQL, as redo_judge_test.ts does it for 17.
 * By default what differs between them, in seconds: heap pages pruned, vacuumed and frozen, and a
 * little of everything else. With NEON_TEST_MATRIX=1 (`deno task test:matrix`) all workloads of all
 * resource managers run on all versions, also on clusters with page checksums.
 */
import assert from "node:assert/strict";
import { Rmgr } from "../libs/postgres/constants.ts";
import { Heap2Info, HEAP_OPCODE_MASK } from "../pageserver/walredo/heap_records.ts";
import { checkImages, Histories, sabotage } from "./redo_judge/checks.ts";
import { ginLaterWorkload, ginWorkload } from "./redo_judge/gin_workload.ts";
import { laterSearchTreeWorkload, searchTreeWorkload } from "./redo_judge/gist_workload.ts";
import { indexWorkload, laterWorkload } from "./redo_judge/hash_workload.ts";
import {
  compareWithFiles,
  judge,
  type RecordedWal,
  recordWal,
  tableWorkload,
  type Workload,
} from "./redo_judge/judge_run.ts";
import {
  btreeWorkload,
  churnWorkload,
  copyWorkload,
  heapWorkload,
  lockWorkload,
  logicalWorkload,
  transactionWorkload,
} from "./redo_judge/workload.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";

const MATRIX = Deno.env.get("NEON_TEST_MATRIX") === "1";

/** A workload, and the images of each resource manager that must at least be compared after it. */
interface Part {
  readonly name: string;
  readonly first: Workload;
  readonly later: Workload;
  readonly imagesMin: Record<string, number>;
  /** Records that redo must have applied, besides those of Heap2 if it is in imagesMin. */
  readonly records: string[];
}

const logical: Workload = (_server, one) => logicalWorkload(one);

/** Opcodes of Heap2 on pages. The first three have other names, and formats, until 16. */
const HEAP2_OPCODES = [
  Heap2Info.PRUNE_ON_ACCESS,
  Heap2Info.PRUNE_VACUUM_SCAN,
  Heap2Info.PRUNE_VACUUM_CLEANUP,
  Heap2Info.VISIBLE,
  Heap2Info.MULTI_INSERT,
  Heap2Info.LOCK_UPDATED,
];

const SHORT: Part = {
  name: "pages",
  first: async (server, one, two) => {
    await heapWorkload(one);
    await churnWorkload(one);
    await copyWorkload(one, server);
    await lockWorkload(one, two, 200);
    await transactionWorkload(one);
    await btreeWorkload(two, 300);
    await one.query("CREATE SEQUENCE s");
    await one.query("SELECT count(nextval('s')) FROM generate_series(1, 900) i");
  },
  later: logical,
  imagesMin: { Heap: 2000, Heap2: 300, Btree: 2000, Sequence: 10 },
  records: [
    ..."MARK_PAGE_HALFDEAD UNLINK_PAGE DELETE VACUUM DEDUP INSERT_POST SPLIT_L SPLIT_R"
      .split(" ").map((name) => `Btree ${name}`),
    ..."INPLACE LOCK UPDATE HOT_UPDATE DELETE".split(" ").map((name) => `Heap ${name}`),
    "MultiXact CREATE_ID",
  ],
};

const WHOLE: Part[] = [
  {
    name: "heap, btree and sequence pages",
    first: tableWorkload,
    later: logical,
    imagesMin: { Heap: 2000, Heap2: 2000, Btree: 2000, Sequence: 2000 },
    records: [],
  },
  {
    name: "hash, BRIN and bloom pages",
    first: indexWorkload,
    later: laterWorkload,
    imagesMin: { Hash: 10000, BRIN: 2000, Generic: 2000 },
    records: [],
  },
  {
    name: "GIN pages",
    first: (_server, one) => ginWorkload(one),
    later: (_server, one) => ginLaterWorkload(one),
    imagesMin: { Gin: 2000 },
    records: [],
  },
  {
    name: "GiST and SP-GiST pages",
    first: searchTreeWorkload,
    later: laterSearchTreeWorkload,
    imagesMin: { Gist: 2000, SPGist: 2000 },
    records: [],
  },
];

function testPart(major: number, part: Part, checksums: boolean): void {
  const cluster = checksums ? " with checksums" : "";
  Deno.test(`redo gives the ${part.name} of PostgreSQL ${major}${cluster}`, async () => {
    const { binDir } = await binariesOf(major);
    const option = checksums ? "--data-checksums" : major >= 18 ? "--no-data-checksums" : undefined;
    const options = option === undefined ? [] : [option];
    const wal = await recordWal(binDir, binDir, part.first, part.later, options);
    try {
      checkWal(wal, major, part);
    } finally {
      await wal.server.remove();
    }
  });
}

function checkWal(wal: RecordedWal, major: number, part: Part): void {
  assert.equal(wal.version.major, major);
  const histories = new Histories(wal.version);
  const opcodes = new Set<number>();
  const { checker } = judge(wal, (key, page, cursor) => {
    histories.add(key, page, cursor);
    if (cursor.rmid === Rmgr.HEAP2) opcodes.add(cursor.info & HEAP_OPCODE_MASK);
  });
  checkImages(checker, part.imagesMin, part.records);
  if ("Heap2" in part.imagesMin) {
    assert.deepEqual([...opcodes].toSorted(), HEAP2_OPCODES.toSorted());
  }
  const { compared, differences } = compareWithFiles(wal, checker);
  assert.deepEqual(differences, []);
  assert.ok(compared.get("relation")! > 200);
  assert.ok(histories.check() > 10, "hardly any page was reconstructed");
  if (MATRIX) sabotage(wal, Object.keys(part.imagesMin));
}

for (const major of testedVersions()) {
  if (!MATRIX && major !== 17) testPart(major, SHORT, false);
  if (!MATRIX) continue;
  for (const part of WHOLE) {
    testPart(major, part, false);
    testPart(major, part, true);
  }
}
