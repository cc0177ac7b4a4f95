/** A page service for tests, of this process, that serves the small cluster of cluster_fixture.ts. */
import { servePg } from "../../libs/pgwire/server.ts";
import { type TestCluster, withCluster } from "../cluster_fixture.ts";
import { servePageServiceSession } from "./commands.ts";

/** Runs `body` with the cluster and the port of the service. */
export function withPageService(
  waitLsnTimeoutMs: number,
  body: (cluster: TestCluster, port: number) => Promise<void>,
): Promise<void> {
  return withCluster(async (cluster) => {
    const stopping = new AbortController();
    const server = servePg({
      hostname: "127.0.0.1",
      port: 0,
      onConnection: (session) =>
        servePageServiceSession(session, {
          manager: cluster.manager,
          reader: cluster.reader,
          waitLsnTimeoutMs,
          signal: stopping.signal,
          now: () => performance.now(),
          pause: cluster.pause,
          unixNow: () => 1_800_000_000_000,
        }),
    });
    try {
      await body(cluster, server.port);
    } finally {
      stopping.abort();
      await server.close();
    }
  });
}
