/** Bytes to a server and back over a real socket, in pieces as networks cut them. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { SeededRandom } from "../load/random.ts";

/** A server has to end a connection within so long once the client has said all. */
const CLOSE_MS_MAX = 10_000;

/** What came back is kept up to here. */
const ANSWER_BYTES_MAX = 1 << 20;

/** What a server made of a client's bytes. */
interface Exchange {
  readonly answer: Uint8Array;
  readonly text: string;
}

/**
 * Sends `bytes`, says that nothing follows, and reads until the server ends the connection. Now and
 * then the client just goes away instead. Throws if the server leaves the connection open; where
 * that is its right, the client goes after `patienceMs`.
 */
export async function exchange(
  port: number,
  bytes: Uint8Array,
  random: SeededRandom,
  patienceMs = Infinity,
): Promise<Exchange> {
  const socket = connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  const parts: Uint8Array[] = [];
  let received = 0;
  let isReset = false;
  socket.on("data", (part: Uint8Array) => {
    received += part.length;
    if (received <= ANSWER_BYTES_MAX) parts.push(part.slice());
  });
  socket.on("error", () => isReset = true); // that is a way of ending it, too
  const closed = once(socket, "close").catch(() => {});
  await once(socket, "connect");
  const goes = random.next() < 0.1;
  await send(socket, bytes, random);
  if (goes) socket.destroy();
  else if (!isReset) socket.end();
  const waitMs = Math.min(CLOSE_MS_MAX, patienceMs);
  const late = setTimeout(() => socket.destroy(new Error("late")), waitMs);
  const began = performance.now();
  const ended = new Promise<void>((resolve) => socket.once("end", resolve));
  await Promise.race([ended, closed]);
  clearTimeout(late);
  socket.destroy();
  if (patienceMs === Infinity && performance.now() - began >= CLOSE_MS_MAX) {
    const sent = new TextDecoder("latin1").decode(bytes.subarray(0, 1500));
    throw new Error(`the server left a connection open for ${CLOSE_MS_MAX} ms after ${sent}`);
  }
  const answer = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    answer.set(part, at);
    at += part.length;
  }
  return { answer, text: new TextDecoder("latin1").decode(answer) };
}

async function send(socket: Socket, bytes: Uint8Array, random: SeededRandom): Promise<void> {
  const pieces = random.next() < 0.7 ? 1 : random.between(2, 6);
  for (let i = 0; i < pieces; i++) {
    const from = Math.floor(bytes.length * i / pieces);
    const to = Math.floor(bytes.length * (i + 1) / pieces);
    if (socket.destroyed || !socket.writable) return;
    await new Promise<void>((resolve) => socket.write(bytes.subarray(from, to), () => resolve()));
  }
}

const FAULTS = [
  "is not a function",
  "of undefined",
  "of null",
  "Invalid array",
  "Invalid typed array",
  "call stack",
  "utside the bounds",
  "not iterable",
  "mix BigInt",
];

/** What the assertions of our programs say when they fail. */
const ASSERTIONS = assertionsBelow(
  ["libs", "broker", "safekeeper", "pageserver", "compute"].map((room) =>
    `${import.meta.dirname}/../../${room}`
  ),
);

function assertionsBelow(directories: string[]): string[] {
  return directories.flatMap((directory) =>
    [...Deno.readDirSync(directory)].flatMap(({ name, isDirectory }) => {
      const path = `${directory}/${name}`;
      if (isDirectory) return assertionsBelow([path]);
      if (!name.endsWith(".ts") || name.endsWith("_test.ts")) return [];
      const calls = Deno.readTextFileSync(path).matchAll(/\bassert\([^;]*?"([^"]{8,})",?\s*\);/g);
      return [...calls].map((call) => call[1]!);
    })
  );
}

/** Throws if an answer is an error of the program and not one of the request. */
export function assertOwnsNoFault(what: string, text: string): void {
  const found = [...FAULTS, ...ASSERTIONS].find((fault) => text.includes(fault));
  if (found === undefined) return;
  const at = text.indexOf(found);
  const around = text.slice(Math.max(0, at - 200), at + 300);
  throw new Error(`${what}: the answer tells of a fault of the program: ${around}`);
}
