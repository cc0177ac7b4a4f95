/**
 * The broker's gRPC service: publish and subscribe, wired to the registry of subscribers. What
 * makes no sense is refused with INVALID_ARGUMENT, and ends the call. With authentication every
 * call shows a bearer token in its metadata, one for all that safekeepers have: what is published
 * here makes others connect to where it says.
 */
import {
  type Metadata,
  type sendUnaryData,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { BadRequest, Forbidden, messageOf, Unavailable } from "../libs/utils/errors.ts";
import type { WireTimelineInfo, WireTypedMessage } from "./messages.ts";
import type { Subscriber, SubscriberRegistry } from "./registry.ts";
import {
  type FilterRequest,
  infoMessage,
  type SubscribeRequest,
  timelineOf,
  type Wanted,
  wantedByFilter,
  wantedInfos,
} from "./requests.ts";

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

function refusalOf(thrown: unknown): Refusal {
  const code = thrown instanceof BadRequest
    ? status.INVALID_ARGUMENT
    : thrown instanceof Unavailable
    ? status.RESOURCE_EXHAUSTED
    : status.INTERNAL;
  return { code, details: messageOf(thrown) };
}

/** Does `work`; what it throws goes to `refuse`. */
function orRefuse(work: () => void, refuse: (why: Refusal) => void): void {
  try {
    work();
  } catch (thrown) {
    refuse(refusalOf(thrown));
  }
}

/** What the broker does at each call. */
export function brokerHandlers(
  registry: SubscriberRegistry,
  authenticator: Authenticator | undefined,
): UntypedServiceImplementation {
  const admit = admissionBy(authenticator);
  return {
    PublishSafekeeperInfo: (
      call: ServerReadableStream<WireTimelineInfo, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      let isOver = false;
      const end: sendUnaryData<unknown> = (error, value) => {
        if (!isOver) done(error, value);
        isOver = true;
      };
      call.on("error", () => {}); // the publisher left: it connects again
      admit(call.metadata, () => {
        call.on("data", (info: WireTimelineInfo) => {
          if (isOver) return;
          orRefuse(() => registry.publish(...infoMessage(info)), end);
        });
        call.on("end", () => end(null, {}));
      }, end);
    },
    PublishOne: (
      call: ServerUnaryCall<WireTypedMessage, unknown>,
      done: sendUnaryData<unknown>,
    ) => {
      admit(call.metadata, () =>
        orRefuse(() => {
          registry.publish(call.request, timelineOf(call.request));
          done(null, {});
        }, done), done);
    },
    SubscribeSafekeeperInfo: (call: ServerWritableStream<SubscribeRequest, unknown>) => {
      attach(admit, registry, call, wantedInfos, (message) => message.safekeeper_timeline_info);
    },
    SubscribeByFilter: (call: ServerWritableStream<FilterRequest, unknown>) => {
      attach(admit, registry, call, wantedByFilter, (message) => message);
    },
  };
}

function attach<T>(
  admit: Admission,
  registry: SubscriberRegistry,
  call: ServerWritableStream<T, unknown>,
  wantedBy: (request: T) => Wanted,
  onWire: (message: WireTypedMessage) => unknown,
): void {
  let remove = () => {};
  call.on("cancelled", () => remove());
  call.on("close", () => remove());
  call.on("error", () => remove());
  const refuse = (why: Refusal) => void call.emit("error", why);
  admit(call.metadata, () => {
    orRefuse(() => {
      const subscriber: Subscriber = {
        ...wantedBy(call.request),
        queued: () => call.writableLength,
        send: (message) => call.write(onWire(message)),
      };
      if (!call.cancelled) remove = registry.add(subscriber);
    }, refuse);
  }, refuse);
}
