import assert from "node:assert/strict";
import { PgClient } from "../../libs/pgwire/client.ts";
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import { Corrupt, Unavailable } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { toLsn } from "../../libs/utils/lsn.ts";
import type { PlannedFile } from "../lazy_files/lay_out.ts";
import { PageServiceFixture, type PageSource } from "../lazy_files/page_service_fixture.ts";
import { fetchPages } from "./fetch_pages.ts";

const LSN = toLsn(2 ** 35 + 24);

/** A page that says which one it is, all over. */
function writePage(rel: number, fork: number, block: number, into: Uint8Array, at: number): void {
  const view = new DataView(into.buffer, into.byteOffset + at, PAGE_SIZE);
  for (let i = 0; i < PAGE_SIZE; i += 16) {
    view.setUint32(i, rel);
    view.setUint32(i + 4, fork);
    view.setUint32(i + 8, block);
    view.setUint32(i + 12, i);
  }
}

const source: PageSource = ({ rel, fork, block }, into, at) => {
  writePage(rel, fork, block, into, at);
  return undefined;
};

/** Small and large relations, an unlogged one (its pages are those of another fork), a 2nd GiB. */
const FILES: PlannedFile[] = [
  ...Array.from({ length: 300 }, (_, i) => planned(10_000 + i, 0, 0, 0, i % 3)),
  planned(5, 0, 0, 0, 1000),
  planned(6, 0, 3, 0, 2),
  planned(7, 1, 1, 0, 129),
  planned(8, 0, 0, 1, 130),
];

function planned(rel: number, fork: number, sourceFork: number, segment: number, pages: number) {
  const path = `${rel}_${fork}.${segment}`;
  return { path, file: { spc: 1663, db: 5, rel, fork, sourceFork, segment, pages } };
}

const TOTAL = FILES.reduce((sum, { file }) => sum + file.pages, 0);

interface Fetched {
  readonly service: PageServiceFixture;
  readonly pgdata: string;
  /** Fetches everything; returns what was told of progress. */
  fetch(files?: readonly PlannedFile[], signal?: AbortSignal): Promise<number[]>;
}

function withService(name: string, pages: PageSource, test: (it: Fetched) => Promise<void>): void {
  Deno.test(name, async () => {
    const pgdata = Deno.makeTempDirSync({ prefix: "neon-eager-" });
    const service = new PageServiceFixture(pages);
    try {
      for (const { path } of FILES) Deno.writeFileSync(`${pgdata}/${path}`, new Uint8Array(0));
      await test({
        service,
        pgdata,
        async fetch(files = FILES, signal = new AbortController().signal) {
          const told: number[] = [];
          await fetchPages({
            tenantId: newTenantId(),
            timelineId: newTimelineId(),
            lsn: LSN,
            pgdata,
            files,
            connect: (signal) => {
              const { host: hostname, port } = service.address;
              return PgClient.connect({ hostname, port }, { user: "test" }, signal);
            },
            signal,
            onProgress: (pages) => told.push(pages),
          });
          return told;
        },
      });
    } finally {
      await service.close();
      Deno.removeSync(pgdata, { recursive: true });
    }
  });
}

function checkFiles(pgdata: string): void {
  const expected = new Uint8Array(PAGE_SIZE);
  for (const { path, file } of FILES) {
    const bytes = Deno.readFileSync(`${pgdata}/${path}`);
    assert.equal(bytes.length, file.pages * PAGE_SIZE, path);
    for (let page = 0; page < file.pages; page++) {
      const block = file.segment * RELATION_SEGMENT_PAGES + page;
      writePage(file.rel, file.sourceFork, block, expected, 0);
      const found = bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      assert.deepEqual(found, expected, `${path} page ${page}`);
    }
  }
}

withService(
  "fetchPages() fetches every page of every file, all as of one LSN",
  (request, into, at) => {
    const isAsked = request.requestLsn === BigInt(LSN) && request.notModifiedSince === BigInt(LSN);
    return isAsked ? source(request, into, at) : "at another LSN";
  },
  async ({ service, pgdata, fetch }) => {
    const told = await fetch();
    assert.equal(told.at(-1), TOTAL);
    assert.ok(told.every((pages, i) => i === 0 || pages > told[i - 1]!));
    assert.equal(service.requests, TOTAL);
    assert.ok(service.commands.length <= 4, "a few connections");
    assert.match(service.commands[0]!, /^pagestream_v3 [0-9a-f]{32} [0-9a-f]{32}$/);
    checkFiles(pgdata);
  },
);

withService("fetchPages() goes on where a connection was lost", source, async (it) => {
  it.service.hangUpAfter = TOTAL - 300;
  await it.fetch();
  assert.ok(it.service.requests > TOTAL, "some were asked for twice");
  checkFiles(it.pgdata);
});

withService(
  "fetchPages() fails with the reason that a page is refused for",
  (request, into, at) => {
    if (request.rel === 5 && request.block === 700) return "Cannot redo custom128";
    return source(request, into, at);
  },
  async ({ fetch }) => {
    await assert.rejects(
      fetch(),
      (thrown) =>
        thrown instanceof Unavailable &&
        thrown.message === "Cannot fetch all pages: Cannot redo custom128",
    );
  },
);

withService(
  "fetchPages() takes no answer to another request",
  source,
  async ({ service, fetch }) => {
    service.spoil = (payload, { block }) => {
      if (block === 700) payload[41] = 1; // the last byte of its number
    };
    await assert.rejects(fetch(), Corrupt);
  },
);

withService("fetchPages() ends when it is told to", source, async ({ service, fetch }) => {
  const abort = new AbortController();
  service.spoil = () => abort.abort(new Unavailable("stopped"));
  await assert.rejects(fetch(FILES, abort.signal), /^Unavailable: stopped$/);
  assert.ok(service.requests < TOTAL);
});

withService("fetchPages() says which directory it cannot write to", source, async (it) => {
  const missing = planned(99, 0, 0, 0, 1);
  await assert.rejects(
    it.fetch([...FILES, missing]),
    new RegExp(`Unavailable: Cannot fetch all pages \\(13 MB\\) to "${it.pgdata}": No such file`),
  );
});
