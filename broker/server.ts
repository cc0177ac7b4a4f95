/** The broker's gRPC service: publish and subscribe, wired to the registry of subscribers. */
import {
  type sendUnaryData,
  Server,
  ServerCredentials,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import {
  brokerService,
  type WireTimelineInfo,
  type WireTimelineKey,
  type WireTypedMessage,
} from "./messages.ts";
import { type Subscriber, SubscriberRegistry, timelineKey } from "./registry.ts";

const TIMELINE_INFO = "SAFEKEEPER_TIMELINE_INFO";

interface SubscribeRequest {
  readonly tenant_timeline_id?: WireTimelineKey | null;
}

interface FilterRequest {
  readonly types: readonly { readonly type: string }[];
  readonly tenant_timeline_id?: {
    readonly enabled: boolean;
    readonly tenant_timeline_id?: WireTimelineKey | null;
  } | null;
}

/** A running broker. */
interface BrokerServer {
  readonly port: number;
  readonly registry: SubscriberRegistry;
  close(): void;
}

/** Listens at `address` ("host:port", port 0 for a free one). Throws if it is taken. */
export async function serveBroker(address: string): Promise<BrokerServer> {
  const registry = new SubscriberRegistry();
  const server = new Server();
  server.addService(brokerService().service, {
    PublishSafekeeperInfo: (
      call: ServerReadableStream<WireTimelineInfo, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      call.on("data", (info: WireTimelineInfo) => {
        registry.publish({ type: TIMELINE_INFO, safekeeper_timeline_info: info });
      });
      call.on("end", () => done(null, {}));
      call.on("error", () => {}); // the publisher left: it connects again
    },
    PublishOne: (
      call: ServerUnaryCall<WireTypedMessage, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      registry.publish(call.request);
      done(null, {});
    },
    SubscribeSafekeeperInfo: (call: ServerWritableStream<SubscribeRequest, unknown>) => {
      attach(registry, call, {
        timeline: timelineKey(call.request.tenant_timeline_id),
        types: new Set([TIMELINE_INFO]),
        queued: () => call.writableLength,
        send: (message) => call.write(message.safekeeper_timeline_info),
      });
    },
    SubscribeByFilter: (call: ServerWritableStream<FilterRequest, unknown>) => {
      const filter = call.request.tenant_timeline_id;
      attach(registry, call, {
        timeline: filter?.enabled ? timelineKey(filter.tenant_timeline_id) : undefined,
        types: new Set(call.request.types.map((wanted) => wanted.type)),
        queued: () => call.writableLength,
        send: (message) => call.write(message),
      });
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  return { port, registry, close: () => server.forceShutdown() };
}

function attach<T>(
  registry: SubscriberRegistry,
  call: ServerWritableStream<T, unknown>,
  subscriber: Subscriber,
): void {
  const remove = registry.add(subscriber);
  call.on("cancelled", remove);
  call.on("close", remove);
  call.on("error", remove);
}
