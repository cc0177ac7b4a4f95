/** What a client of one of our PostgreSQL ports says, as messages that can be damaged. */
import { ByteWriter } from "../../libs/utils/bytes.ts";
import type { SeededRandom } from "../load/random.ts";
import { anything, joined, mutated, mutatedLine } from "./mutations.ts";

/** One message. */
export type PgMessage =
  | { readonly kind: "startup"; readonly parameters: Readonly<Record<string, string>> }
  | { readonly kind: "query"; readonly text: string }
  | { readonly kind: "copyData"; readonly payload: Uint8Array };

const HUGE_LENGTHS = [0, 1, 3, 0x2000, 0x3ffffff, 0x4000001, 0x7fffffff, 0x80000000, 0xffffffff];

function framed(type: string, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("big", body.length + 5);
  return writer.u8(type.charCodeAt(0)).u32(body.length + 4).raw(body).bytes().slice();
}

function encode(message: PgMessage): Uint8Array<ArrayBuffer> {
  switch (message.kind) {
    case "startup": {
      const packet = new ByteWriter("big").u32(0).u32(196608);
      for (const [name, value] of Object.entries(message.parameters)) {
        packet.cstr(name).cstr(value);
      }
      return packet.u8(0).patchU32(0, packet.length).bytes().slice();
    }
    case "query":
      return framed("Q", new TextEncoder().encode(`${message.text}\0`));
    case "copyData":
      return framed("d", message.payload);
  }
}

/** All of a dialogue's bytes, damaged in one place or another. */
export function damaged(dialogue: readonly PgMessage[], random: SeededRandom): Uint8Array {
  const messages = dialogue.map(encode);
  const at = random.between(0, dialogue.length - 1);
  const chosen = dialogue[at]!;
  switch (random.between(0, 8)) {
    case 0: // anywhere in the stream
      return mutated(joined(...messages), random, messages);
    case 1: { // cut off
      const all = joined(...messages);
      return all.subarray(0, random.between(0, all.length));
    }
    case 2: { // a length that nothing follows
      const lengthAt = chosen.kind === "startup" ? 0 : 1;
      new DataView(messages[at]!.buffer).setUint32(lengthAt, random.pick(HUGE_LENGTHS));
      return joined(...messages.slice(0, at + 1), anything(random, 2000));
    }
    case 3: { // again and again
      const times = chosen.kind === "copyData" ? 40 : 2;
      messages.splice(at, 0, ...Array.from({ length: times }, () => messages[at]!));
      return joined(...messages);
    }
    case 4: // a message of another type
      messages.splice(
        at,
        0,
        framed(String.fromCharCode(random.between(0, 127)), anything(random, 40)),
      );
      return joined(...messages);
    case 5: // in another order
      messages.splice(random.between(0, at), 0, ...messages.splice(at, 1));
      return joined(...messages);
    default: // in what it says
      messages[at] = encode(damagedContent(chosen, dialogue, random));
      return joined(...messages);
  }
}

function damagedContent(
  message: PgMessage,
  dialogue: readonly PgMessage[],
  random: SeededRandom,
): PgMessage {
  switch (message.kind) {
    case "startup": {
      const entries = Object.entries(message.parameters);
      const at = random.between(0, entries.length - 1);
      entries[at] = [entries[at]![0], mutatedLine(entries[at]![1], random)];
      return { kind: "startup", parameters: Object.fromEntries(entries) };
    }
    case "query":
      return { kind: "query", text: mutatedLine(message.text, random) };
    case "copyData": {
      const others = dialogue.flatMap((one) => one.kind === "copyData" ? [one.payload] : []);
      return { kind: "copyData", payload: mutated(message.payload, random, others) };
    }
  }
}
