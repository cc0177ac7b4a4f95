/** Damaged dialogues with a page service, beside a client that must not notice. */
import assert from "node:assert/strict";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { ByteWriter } from "../../libs/utils/bytes.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { HEAP, type TestCluster } from "../../pageserver/cluster_fixture.ts";
import { withPageService } from "../../pageserver/page_service/cluster_service_fixture.ts";
import type { SeededRandom } from "../load/random.ts";
import { assertOwnsNoFault, exchange } from "./exchange.ts";
import { damaged, type PgMessage } from "./pg_dialogue.ts";

const LATEST = 2n ** 64n - 1n;
/** Cases between two questions of the neighbour. */
const NEIGHBOUR_EVERY = 10;
const TOGETHER = 4;
const WAIT_LSN_TIMEOUT_MS = 20;

function request(version: 2 | 3, tag: number, body: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter("big").u8(tag);
  if (version === 3) writer.u64(7n);
  writer.u64(LATEST).u64(1n);
  body(writer);
  return writer.bytes().slice();
}

function requests(version: 2 | 3): PgMessage[] {
  const relation = (w: ByteWriter) => w.u32(HEAP.spc).u32(HEAP.db).u32(HEAP.rel).u8(HEAP.fork);
  return [
    request(version, 0, relation),
    request(version, 1, relation),
    request(version, 2, (w) => void relation(w).u32(1)),
    request(version, 3, (w) => void w.u32(5)),
    request(version, 4, (w) => void w.u8(0).u32(0)),
  ].map((payload) => ({ kind: "copyData", payload }));
}

function dialogues({ timeline }: TestCluster): PgMessage[][] {
  const ids = `${timeline.tenantId} ${timeline.timelineId}`;
  const lsn = formatLsn(timeline.lastRecordLsn);
  const startup: PgMessage = {
    kind: "startup",
    parameters: { user: "fuzz", options: "-c a=b", application_name: "fuzz" },
  };
  const query = (text: string): PgMessage => ({ kind: "query", text });
  return [
    [startup, query(`pagestream_v3 ${ids}`), ...requests(3)],
    [startup, query(`pagestream_v2 ${ids}`), ...requests(2)],
    [startup, query(`basebackup ${ids} ${lsn} --lazy`), query(`lease lsn ${ids} ${lsn}`)],
    [startup, query(`basebackup ${ids} latest --gzip --replica`), query("set a = b")],
    [startup, query(`fullbackup ${ids} ${lsn} 0/0`), query("show all")],
  ];
}

/** Asks for a page that is known, on a connection that stays open through everything. */
async function assertServes(copy: CopyBoth): Promise<void> {
  const asked = request(3, 2, (w) => void w.u32(HEAP.spc).u32(HEAP.db).u32(HEAP.rel).u8(0).u32(1));
  copy.queue(asked);
  await copy.flush();
  const answer = (await copy.receive())!;
  assert.equal(answer[0], 102);
  assert.deepEqual(answer.subarray(1, asked.length), asked.subarray(1));
  assert.ok(answer.subarray(asked.length + 24).every((byte) => byte === 2), "another page");
}

/** Runs so many cases. */
export async function fuzzPageService(random: SeededRandom, cases: number): Promise<void> {
  await withPageService(WAIT_LSN_TIMEOUT_MS, async (cluster, port) => {
    const { tenantId, timelineId } = cluster.timeline;
    const neighbour = await PgClient.connect({ hostname: "127.0.0.1", port }, {
      user: "neighbour",
    });
    try {
      const copy = await neighbour.copyBoth(`pagestream_v3 ${tenantId} ${timelineId}`);
      await assertServes(copy);
      const objects = cluster.manager.interner.size;
      const all = dialogues(cluster);
      for (let done = 0; done < cases; done += TOGETHER) {
        const bytes = Array.from({ length: TOGETHER }, () => damaged(random.pick(all), random));
        const pieces = random.fork();
        const answers = bytes.map((one) => exchange(port, one, pieces));
        if (done % NEIGHBOUR_EVERY === 0) await assertServes(copy);
        for (const { text } of await Promise.all(answers)) assertOwnsNoFault("page service", text);
      }
      await assertServes(copy);
      assert.ok(cluster.manager.interner.size <= objects + 8, "what was asked for is remembered");
    } finally {
      neighbour.close();
    }
  });
}
