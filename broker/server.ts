/**
 * The broker's gRPC service: publish and subscribe, wired to the registry of subscribers. With
 * authentication every call shows a bearer token in its metadata, one for all that safekeepers
 * have: what is published here makes others connect to where it says.
 */
import {
  type Metadata,
  type sendUnaryData,
  Server,
  ServerCredentials,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { Forbidden, messageOf } from "../libs/utils/errors.ts";
import {
  brokerService,
  type WireTimelineInfo,
  type WireTimelineKey,
  type WireTypedMessage,
} from "./messages.ts";
import { type Subscriber, SubscriberRegistry, timelineKey } from "./registry.ts";

/** Longest message; they have some 300 bytes, and thousands may wait for a slow subscriber. */
const MESSAGE_BYTES_MAX = 4096;

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

/** Runs `work` at once, or as soon as it is known that the caller may; else `refuse`. */
type Admission = (metadata: Metadata, work: () => void, refuse: (why: Refusal) => void) => void;

type Refusal = Pick<ServiceError, "code" | "details">;

function admissionBy(authenticator: Authenticator | undefined): Admission {
  if (authenticator === undefined) return (_metadata, work) => work();
  return (metadata, work, refuse) => {
    const [authorization] = metadata.get("authorization").map(String);
    authenticator.check(authorization, { of: "server" }).then(work, (thrown: unknown) => {
      const code = thrown instanceof Forbidden ? status.PERMISSION_DENIED : status.UNAUTHENTICATED;
      refuse({ code, details: messageOf(thrown) });
    });
  };
}

/** Listens at `address` ("host:port", port 0 for a free one). Throws if it is taken. */
export async function serveBroker(
  address: string,
  authenticator?: Authenticator,
): Promise<BrokerServer> {
  const registry = new SubscriberRegistry();
  const admit = admissionBy(authenticator);
  const server = new Server({ "grpc.max_receive_message_length": MESSAGE_BYTES_MAX });
  server.addService(brokerService().service, {
    PublishSafekeeperInfo: (
      call: ServerReadableStream<WireTimelineInfo, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      call.on("error", () => {}); // the publisher left: it connects again
      admit(call.metadata, () => {
        call.on("data", (info: WireTimelineInfo) => {
          registry.publish({ type: TIMELINE_INFO, safekeeper_timeline_info: info });
        });
        call.on("end", () => done(null, {}));
      }, done);
    },
    PublishOne: (
      call: ServerUnaryCall<WireTypedMessage, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      admit(call.metadata, () => {
        registry.publish(call.request);
        done(null, {});
      }, done);
    },
    SubscribeSafekeeperInfo: (call: ServerWritableStream<SubscribeRequest, unknown>) => {
      attach(admit, registry, call, {
        timeline: timelineKey(call.request.tenant_timeline_id),
        types: new Set([TIMELINE_INFO]),
        queued: () => call.writableLength,
        send: (message) => call.write(message.safekeeper_timeline_info),
      });
    },
    SubscribeByFilter: (call: ServerWritableStream<FilterRequest, unknown>) => {
      const filter = call.request.tenant_timeline_id;
      attach(admit, registry, call, {
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
  admit: Admission,
  registry: SubscriberRegistry,
  call: ServerWritableStream<T, unknown>,
  subscriber: Subscriber,
): void {
  let remove = () => {};
  call.on("cancelled", () => remove());
  call.on("close", () => remove());
  call.on("error", () => remove());
  admit(call.metadata, () => {
    if (!call.cancelled) remove = registry.add(subscriber);
  }, (why) => call.emit("error", why));
}
