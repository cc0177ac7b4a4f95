/**
 * Damaged messages at the decoders of what peers send: each is refused with an error that says so,
 * and never with a fault of the decoder. What a proposer hears from a safekeeper, a host from
 * Postgres, a pageserver from a safekeeper, and any client from a server.
 */
import { ByteWriter } from "../../libs/utils/bytes.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import {
  dataRowBody,
  errorBody,
  readColumns,
  readDataRow,
  readError,
  rowDescriptionBody,
} from "../../libs/pgwire/messages.ts";
import { readReceiverMessage, readSenderMessage } from "../../libs/pgwire/replication.ts";
import { decodeFeedback, encodeFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import {
  type AcceptorMessage,
  decodeAcceptorMessage,
  writeAcceptorMessage,
} from "../../libs/safekeeper_protocol/messages.ts";
import type { SeededRandom } from "../load/random.ts";
import { mutated } from "./mutations.ts";

const LSN = parseLsn("0/2000028");
const FEEDBACK = {
  currentTimelineSize: 1,
  lastReceivedLsn: LSN,
  diskConsistentLsn: LSN,
  remoteConsistentLsn: LSN,
  replyTime: 1,
  shardNumber: 1,
  corruptionDetected: true,
};

const ANSWERS: readonly AcceptorMessage[] = [
  {
    kind: "greeting",
    nodeId: 1,
    membership: { generation: 3, members: [{ id: 1, host: "a", pgPort: 5 }] },
    term: 4,
  },
  {
    kind: "vote",
    generation: 3,
    term: 4,
    voteGiven: true,
    flushLsn: LSN,
    truncateLsn: LSN,
    termHistory: [{ term: 1, lsn: LSN }, { term: 4, lsn: (LSN + 8) as Lsn }],
  },
  {
    kind: "append",
    generation: 3,
    term: 4,
    flushLsn: LSN,
    commitLsn: LSN,
    hotStandby: { time: 1, xmin: 700, catalogXmin: 0 },
    feedback: FEEDBACK,
  },
];

function bytesOf(write: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter("big");
  write(writer);
  return writer.bytes().slice();
}

interface Codec {
  readonly samples: readonly Uint8Array[];
  decode(bytes: Uint8Array): unknown;
}

const CODECS: Readonly<Record<string, Codec>> = {
  "answers of safekeepers": {
    samples: ANSWERS.map((one) => bytesOf((writer) => writeAcceptorMessage(writer, one))),
    decode: decodeAcceptorMessage,
  },
  "feedback of pageservers": { samples: [encodeFeedback(FEEDBACK)], decode: decodeFeedback },
  "replication from a sender": {
    samples: [
      bytesOf((w) => w.u8(0x77).lsn(LSN).lsn(LSN).i64(1n).raw(new Uint8Array(40).fill(7))),
      bytesOf((w) => w.u8(0x6b).lsn(LSN).i64(1n).u8(1)),
    ],
    decode: readSenderMessage,
  },
  "replies of a receiver": {
    samples: [
      bytesOf((w) => w.u8(0x72).lsn(LSN).lsn(LSN).lsn(LSN).i64(1n).u8(1)),
      bytesOf((w) => w.u8(0x68).i64(1n).u32(7).u32(0).u32(7).u32(0)),
      bytesOf((w) => w.u8(0x7a).u64(5n).raw(new Uint8Array(5))),
    ],
    decode: readReceiverMessage,
  },
  "errors": { samples: [errorBody("ERROR", "XX000", "no")], decode: readError },
  "rows": { samples: [dataRowBody(["a", null, "bc"])], decode: readDataRow },
  "columns": {
    samples: [rowDescriptionBody([{ name: "a", typeOid: 25 }, { name: "b", typeOid: 23 }])],
    decode: readColumns,
  },
};

/** Runs so many cases at each decoder. */
export function fuzzCodecs(random: SeededRandom, cases: number): Promise<void> {
  for (const [name, { samples, decode }] of Object.entries(CODECS)) {
    for (let i = 0; i < cases; i++) {
      const bytes = mutated(random.pick(samples), random, samples);
      try {
        decode(bytes);
      } catch (thrown) {
        if (thrown instanceof Corrupt || thrown instanceof SyntaxError) continue;
        throw new Error(`${name}: ${bytes.toHex()} is refused with ${thrown}`, { cause: thrown });
      }
    }
  }
  return Promise.resolve();
}
