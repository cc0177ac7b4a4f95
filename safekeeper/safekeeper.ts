/**
 * A running safekeeper: WAL service, HTTP API, publishing and housekeeping over one directory. The
 * daemon (main.ts) starts one; so do tests, several in one process.
 */

import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { listenAt, serveHttp } from "../libs/daemon/listen.ts";
import type { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { parseAddress } from "../libs/utils/address.ts";
import { replaceFile } from "../libs/utils/durable.ts";
import { Conflict } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";
import { BrokerPublisher, type InfoSink } from "./broker_publisher.ts";
import type { SafekeeperConfig } from "./config.ts";
import { httpApi } from "./http_api.ts";
import { isAhead } from "./peer_recovery.ts";
import { RecoveryLoop } from "./recovery_loop.ts";
import { type RemoteBackup, Timelines } from "./timelines.ts";
import { serveWal } from "./wal_service.ts";

const MAINTENANCE_INTERVAL_MS = 1000;

/** A safekeeper that serves. */
export interface Safekeeper {
  /** host:port, with the real port where the configuration said 0. */
  readonly pgAddress: string;
  readonly httpAddress: string;
  /**
   * Takes what a safekeeper has published: what is committed, what the pageserver has durably
   * (which reports only to the one that it streams from), what one has uploaded for all, and who is
   * ahead of whom.
   */
  heard(info: SafekeeperTimelineInfo): void;
  /** Ends all connections, makes everything durable, and closes it. */
  close(): Promise<void>;
}

/** What a safekeeper has besides its directory, where it is configured. */
interface SafekeeperParts {
  readonly storage?: RemoteStorage | undefined;
  /** Asks clients for tokens. */
  readonly authenticator?: Authenticator | undefined;
  /** The one to show to peers. */
  readonly token?: TokenSource | undefined;
}

/**
 * Opens the directory and serves. The caller holds the directory's lock. Throws Corrupt or Conflict
 * if the directory cannot be used, Conflict for a taken port.
 */
export function startSafekeeper(
  directory: string,
  config: SafekeeperConfig,
  broker: InfoSink,
  { storage, authenticator, token }: SafekeeperParts = {},
): Safekeeper {
  claimIdentity(directory, config.id);
  const timelines = new Timelines(directory, config.id, remoteBackup(config, storage));
  timelines.peerToken = token;
  const wal = listenAt(config.listen_pg_addr, (at) => serveWal(timelines, at, authenticator));
  const http = serveHttp(config.listen_http_addr, httpApi(config.id, timelines, authenticator));
  const pgAddress = `${wal.hostname}:${wal.port}`;
  const httpAddress = `${parseAddress(config.listen_http_addr).hostname}:${http.addr.port}`;
  const publisher = new BrokerPublisher(broker, { nodeId: config.id, pgAddress, httpAddress });
  timelines.onCommit = (timeline) => publisher.changed(timeline);
  publisher.start(() => timelines.all());
  for (const timeline of timelines.all()) publisher.publishSoon(timeline);
  const recovery = new RecoveryLoop(config.id, token);
  const maintain = () => timelines.maintain(performance.now());
  const maintenance = setInterval(maintain, MAINTENANCE_INTERVAL_MS);
  return {
    pgAddress,
    httpAddress,
    heard(info) {
      const timeline = timelines.find(info.tenantId, info.timelineId);
      if (info.safekeeperId === config.id || timeline === undefined) return;
      timeline.remoteConsistent(info.remoteConsistentLsn);
      timeline.backedUp(info.backupLsn);
      timeline.peerCommitted(info.lastLogTerm, info.commitLsn);
      timeline.peers.heard(info, performance.now());
      recovery.heard(timeline, info);
      // While a compute writes, that is its business
      const isAway = timeline.proposers.size === 0 && isAhead(timeline.acceptor, info);
      if (isAway) publisher.publishSoon(timeline);
    },
    async close() {
      clearInterval(maintenance);
      await recovery.close();
      publisher.close();
      await timelines.close();
      await Promise.all([wal.close(), http.shutdown()]);
    },
  };
}

function remoteBackup(
  config: SafekeeperConfig,
  storage: RemoteStorage | undefined,
): RemoteBackup | undefined {
  if (storage === undefined) return undefined;
  const settings = {
    partialTimeoutMs: config.partial_backup_timeout_ms,
    offload: config.enable_offload,
    minResidentMs: config.eviction_min_resident_ms,
    parallelUploads: config.wal_backup_parallel_jobs,
  };
  return { storage, settings, now: () => performance.now() };
}

/**
 * Binds the directory to the safekeeper's id (`safekeeper.id`): under another id the same votes
 * could be counted twice. Throws Conflict for a directory of another id.
 */
function claimIdentity(directory: string, id: number): void {
  const path = `${directory}/safekeeper.id`;
  const found = ifThere(() => Number(Deno.readTextFileSync(path)));
  if (found === id) return;
  if (found !== undefined) {
    throw new Conflict(
      `Cannot start safekeeper ${id} on "${directory}": it belongs to safekeeper ${found}`,
    );
  }
  replaceFile(path, new TextEncoder().encode(`${id}\n`));
}
