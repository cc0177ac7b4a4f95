import { deepEqual, equal } from "node:assert/strict";
import type { LazyFilesMap } from "../libs/basebackup/lazy_files_map.ts";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { newTenantId, newTimelineId, type TenantId } from "../libs/utils/id.ts";
import { toLsn } from "../libs/utils/lsn.ts";
import type { EndpointSpec } from "./client.ts";
import { type ArenaFile, markFetched, presentRuns } from "./lazy_files/arena.ts";
import { layOutFiles } from "./lazy_files/lay_out.ts";
import { PageServiceFixture } from "./lazy_files/page_service_fixture.ts";
import { StartPages } from "./start_pages.ts";

/** Where the arena counts how often pages were fetched (arena.h). */
const FETCH_CALLS_OFFSET = 512;
const LSN = toLsn(0x5000028);

type Fork = [db: number, rel: number, fork: number, blocks: number];

/** The catalogs of one start, and of the next one: other lengths, one that is gone, one more. */
const FIRST: Fork[] = [
  ...[[0, 1262, 0, 1], [5, 1249, 0, 50], [5, 1259, 0, 14], [5, 1259, 1, 3]] as Fork[],
  ...[[5, 2601, 0, 1], [5, 20_000, 0, 30], [5, 2000, 0, 1500]] as Fork[],
];
const NEXT: Fork[] = [
  ...[[0, 1262, 0, 1], [5, 1249, 0, 60], [5, 1259, 0, 2], [5, 1259, 1, 3]] as Fork[],
  ...[[5, 2602, 0, 4], [5, 20_000, 0, 30]] as Fork[],
];

function mapOf(forks: readonly Fork[]): LazyFilesMap {
  return {
    lsn: LSN,
    prevLsn: toLsn(0x5000000),
    pgMajor: 17,
    forks: forks.map(([db, rel, fork, blocks]) => {
      return { spc: db === 0 ? 1664 : 1663, db, rel, fork, blocks };
    }),
  };
}

interface Scene {
  readonly service: PageServiceFixture;
  spec(tenant: TenantId, pgVersion?: number): EndpointSpec;
  /** Lays out files, and says that Postgres has fetched the pages. */
  started(forks: readonly Fork[], pages: readonly [rel: number, block: number][]): string;
  /** Lays out files with the pages that `known` has for them; "rel/block" of those. */
  next(known: StartPages, spec: EndpointSpec): Promise<string[]>;
}

function runsIn(arena: string): string[] {
  return presentRuns(arena, () => true).flatMap(({ file, first, pages }) =>
    Array.from({ length: pages }, (_, i) => `${file.rel}/${first + i}`)
  );
}

async function inScene(test: (scene: Scene) => Promise<void>): Promise<void> {
  const root = Deno.makeTempDirSync({ prefix: "start-pages-" });
  await using service = new PageServiceFixture(({ rel, block }, into, at) => {
    if (rel === 1249 && block === 7) return "there is no such page";
    into.fill(block + 1, at, at + PAGE_SIZE);
    return undefined;
  });
  let count = 0;
  const layOut = (forks: readonly Fork[]) => {
    const directory = `${root}/${count++}`;
    const [pgdata, arenaPath] = [`${directory}/pgdata`, `${directory}/arena`];
    layOutFiles({
      ...{ pgdata, arenaPath, map: mapOf(forks), pageserver: service.address },
      ...{ tenantId: newTenantId(), timelineId: newTimelineId() },
      bootId: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    });
    return { pgdata, arena: arenaPath };
  };
  try {
    await test({
      service,
      spec: (tenant, pgVersion = 17) => ({
        ...{ endpoint_id: "ep", tenant_id: tenant, timeline_id: newTimelineId(), mode: "Primary" },
        ...{ pg_version: pgVersion, pg_port: 5432, pg_bin_dir: "/", safekeepers: [] },
        pageserver: service.address,
      }),
      started(forks, pages) {
        const { arena } = layOut(forks);
        const files = new Map<number, ArenaFile>();
        for (const { spc, db, rel, fork, blocks } of mapOf(forks).forks) {
          const file = { spc, db, rel, fork, sourceFork: fork, segment: 0, pages: blocks };
          if (fork === 0) files.set(rel, file);
        }
        markFetched(
          arena,
          pages.map(([rel, first]) => ({ file: files.get(rel)!, first, pages: 1 })),
        );
        using file = Deno.openSync(arena, { write: true });
        file.seekSync(FETCH_CALLS_OFFSET, Deno.SeekMode.Start);
        file.writeSync(new Uint8Array([40]));
        return arena;
      },
      async next(known, spec) {
        const { pgdata, arena } = layOut(NEXT);
        const pages = known.begin(spec);
        pages.fetch(LSN);
        await pages.place(mapOf(NEXT), pgdata, arena);
        const marked = runsIn(arena);
        for (const { db, rel, fork, blocks } of mapOf(NEXT).forks) {
          const bytes = Deno.readFileSync(
            `${pgdata}/${db === 0 ? "global" : "base/5"}/${rel}${fork === 1 ? "_fsm" : ""}`,
          );
          equal(bytes.length, blocks * PAGE_SIZE);
          for (let block = 0; block < blocks; block++) {
            const isThere = fork === 0 && marked.includes(`${rel}/${block}`);
            const page = bytes.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE);
            const wanted = isThere ? block + 1 : 0;
            equal(page.every((byte) => byte === wanted), true, `${rel}/${block} is ${wanted}`);
          }
        }
        return marked;
      },
    });
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

const READ: [number, number][] = [
  ...[[1262, 0], [1249, 6], [1249, 7], [1249, 8], [1249, 40]] as [number, number][],
  ...[[1259, 0], [1259, 1], [1259, 2], [2601, 0], [20_000, 3], [2000, 1]] as [number, number][],
];
/** Of those: not what is refused, or not there any more, nor what is no catalog. */
const PLACED = ["1262/0", "1249/6", "1249/8", "1249/40", "1259/0", "1259/1"];

Deno.test("a start has the catalog pages that the one before has read", () =>
  inScene(async ({ service, spec, started, next }) => {
    const known = new StartPages();
    const [tenant, other] = [newTenantId(), newTenantId()];
    deepEqual(await next(known, spec(tenant)), []);
    equal(service.commands.length, 0, "nobody is asked for nothing");
    known.learn(spec(tenant), started(FIRST, READ));
    deepEqual(await next(known, spec(tenant)), PLACED);
    equal(service.last!.requestLsn, BigInt(LSN));
    equal(service.last!.notModifiedSince, BigInt(LSN));
    deepEqual(await next(known, spec(other)), PLACED, "another tenant's catalogs are alike");
    deepEqual(await next(known, spec(other, 16)), [], "those of another version are not");
    deepEqual(await next(known, { ...spec(tenant), eager: true }), []);
  }));

Deno.test("a start goes on with the pages that have come", () =>
  inScene(async ({ service, spec, started, next }) => {
    const known = new StartPages();
    const tenant = newTenantId();
    known.learn(spec(tenant), started(FIRST, READ));
    service.hangUpAfter = 3;
    deepEqual(await next(known, spec(tenant)), ["1262/0", "1249/6"]);
    service.spoil = (payload, { block }) => block === 8 && payload.fill(9, 1, 9);
    deepEqual(await next(known, spec(tenant)), ["1262/0", "1249/6"]);
    await service.close();
    deepEqual(await next(known, spec(tenant)), []);
  }));
