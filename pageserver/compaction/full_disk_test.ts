/** Compaction on a file system that is really full: nothing is made, and all else goes on. */
import assert from "node:assert/strict";
import { newTenantId } from "../../libs/utils/id.ts";
import { SmallDisk } from "../../libs/utils/small_disk_fixture.ts";
import { checkContents, lsnOf, putNumbered } from "../repository/numbered_fixture.ts";
import { importRoot, openManager } from "../repository/repository_fixture.ts";
import { makeTextImages, rewriteSome } from "./image_fixture.ts";

const RECORDS = 500;

const disk = await SmallDisk.mount(8);

Deno.test({
  name: "a full disk stops a pass, and what it has written is taken over when there is space again",
  ignore: disk === undefined,
  fn: async () => {
    await using mounted = disk!;
    const manager = openManager(mounted.path);
    const tenant = await manager.attach(newTenantId(), 1);
    const timeline = await importRoot(tenant, manager);
    for (let n = 1; n <= RECORDS; n++) putNumbered(timeline, n);
    timeline.advance(lsnOf(RECORDS), lsnOf(RECORDS - 1));
    await timeline.flush();
    const path = `${mounted.path}/tenants/${tenant.tenantId}/timelines/${timeline.timelineId}`;
    const files = () => [...Deno.readDirSync(path)].map(({ name }) => name).sort();
    const before = files();
    const imageLayers = () => timeline.layerInfos().filter(({ kind }) => kind === "Image").length;

    mounted.fill();
    await assert.rejects(makeTextImages(timeline), /No space left/);
    assert.deepEqual(files(), before);
    checkContents(timeline);

    mounted.free();
    const taking = makeTextImages(timeline, {}, () => mounted.fill());
    await assert.rejects(taking, /No space left/);
    assert.equal(imageLayers(), 1);
    checkContents(timeline);

    mounted.free();
    timeline.tick();
    await timeline.flush();
    assert.equal(imageLayers(), 2);
    checkContents(timeline);
    assert.equal((await makeTextImages(timeline))?.pages, 0);

    // Delta layers, too: they stay until others can take their place
    const deltas = () =>
      timeline.layerInfos().filter(({ kind }) => kind === "Delta").map((layer) => layer.fileName);
    const beforeRewrite = files();
    mounted.fill();
    await assert.rejects(rewriteSome(timeline), /No space left/);
    assert.deepEqual(files(), beforeRewrite);
    mounted.free();
    const unordered = deltas();
    const rewriting = rewriteSome(timeline, { targetBytes: 5000 }, () => mounted.fill());
    await assert.rejects(rewriting, /No space left/);
    assert.deepEqual(deltas(), unordered);
    checkContents(timeline);
    mounted.free();
    await timeline.flush();
    assert.ok(deltas().length > 1 && deltas().every((name) => name.endsWith("-k")));
    assert.ok(unordered.every((name) => !files().includes(name)));
    checkContents(timeline);
    await manager.shutdown();

    const reopened = openManager(mounted.path);
    const again = (await reopened.attach(tenant.tenantId, 2)).timeline(timeline.timelineId);
    assert.equal(again.layerInfos().filter(({ kind }) => kind === "Image").length, 2);
    checkContents(again);
    await reopened.shutdown();
  },
});
