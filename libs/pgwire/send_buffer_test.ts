import assert from "node:assert/strict";
import { SendBuffer } from "./send_buffer.ts";

/** A socket that takes `step` bytes of a write when it is told to, and remembers them. */
class SlowSink {
  readonly taken: number[] = [];
  readonly #step: number;
  readonly #waiting: { resolve: (count: number) => void; reject: (why: Error) => void }[] = [];
  #writing: Uint8Array | undefined;

  constructor(step: number) {
    this.#step = step;
  }

  get isWriting(): boolean {
    return this.#writing !== undefined;
  }

  write(bytes: Uint8Array): Promise<number> {
    assert.equal(this.#writing, undefined, "one write at a time");
    this.#writing = bytes;
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Ends the write under way, and lets its successor begin. */
  async take(): Promise<void> {
    const bytes = this.#writing!;
    this.#writing = undefined;
    const count = Math.min(this.#step, bytes.length);
    for (let i = 0; i < count; i++) this.taken.push(bytes[i]!);
    this.#waiting.shift()!.resolve(count);
    await microtasks();
  }

  async fail(why: Error): Promise<void> {
    this.#writing = undefined;
    this.#waiting.shift()!.reject(why);
    await microtasks();
  }

  async takeAll(): Promise<void> {
    while (this.isWriting) await this.take();
  }
}

async function microtasks(): Promise<void> {
  for (let i = 0; i < 20; i++) await undefined;
}

/** Bytes that are not the same twice in a row, large enough for a buffer that is lent. */
function pattern(seed: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) + seed) & 0xff);
}

Deno.test("send() resolves while the socket takes the bytes, flush() when it has them all", async () => {
  const sink = new SlowSink(70_000);
  const sender = new SendBuffer(sink);
  const first = pattern(1, 100_000);
  const second = pattern(2, 100);
  const third = pattern(3, 300_000);
  sender.raw(first);
  await sender.send();
  assert.ok(sink.isWriting);
  sender.raw(second); // gathers meanwhile
  let sent = false;
  const sending = sender.send().then(() => sent = true);
  await sink.take();
  assert.equal(sent, false, "the first write is not over");
  await sink.take();
  await sending;
  sender.raw(third);
  let flushed = false;
  const flushing = sender.flush().then(() => flushed = true);
  await sink.take();
  assert.equal(flushed, false);
  await sink.takeAll();
  await flushing;
  assert.deepEqual(sink.taken, [...first, ...second, ...third]);
  assert.equal(sender.length, 0);
});

Deno.test("push() sends at once, or behind what is leaving, and nobody waits", async () => {
  const sink = new SlowSink(60);
  const sender = new SendBuffer(sink);
  const parts = [pattern(1, 100), pattern(2, 30), pattern(3, 30), pattern(4, 10)];
  let left = 0;
  sender.onLeft = () => left++;
  sender.push();
  assert.equal(sink.isWriting, false, "there is nothing");
  sender.raw(parts[0]!);
  sender.push();
  assert.ok(sink.isWriting);
  for (const part of parts.slice(1, 3)) {
    sender.raw(part);
    sender.push();
  }
  assert.equal(sender.length, 60, "gathers meanwhile");
  await sink.take();
  await sink.take();
  assert.ok(sink.isWriting, "goes on by itself");
  assert.equal(sender.length, 0);
  assert.deepEqual([left, sender.isLeaving], [0, true]);
  sender.raw(parts[3]!); // and this one is left for a flush
  await sink.take();
  assert.equal(sink.isWriting, false);
  assert.deepEqual([left, sender.isLeaving], [1, false], "told when nothing goes on");
  const flushing = sender.flush();
  await microtasks();
  await sink.takeAll();
  await flushing;
  assert.deepEqual(sink.taken, parts.flatMap((part) => [...part]));
});

Deno.test("what fails behind push() is thrown by the next call, and nothing follows", async () => {
  const sink = new SlowSink(10);
  const sender = new SendBuffer(sink);
  sender.raw(pattern(1, 10));
  sender.push();
  sender.raw(pattern(2, 10));
  sender.push();
  await sink.fail(new Error("broken pipe"));
  assert.equal(sink.isWriting, false);
  assert.throws(() => sender.push(), /broken pipe/);
  await assert.rejects(sender.flush(), /broken pipe/);
});

Deno.test("what fails behind send() is thrown by the next call, and again", async () => {
  const sink = new SlowSink(10);
  const sender = new SendBuffer(sink);
  sender.raw(pattern(1, 40));
  await sender.send();
  await sink.take();
  await sink.fail(new Error("broken pipe"));
  await assert.rejects(sender.send(), /broken pipe/);
  sender.raw(pattern(2, 40));
  await assert.rejects(sender.flush(), /broken pipe/);
  assert.equal(sink.isWriting, false);
});

Deno.test("connections that borrow buffers at the same time do not share them", async () => {
  const sinks = [0, 1, 2, 3, 4, 5].map(() => new SlowSink(90_000));
  const senders = sinks.map((sink) => new SendBuffer(sink));
  const expected: number[][] = sinks.map(() => []);
  for (let round = 0; round < 3; round++) {
    for (const [n, sender] of senders.entries()) {
      const bytes = pattern(round * 10 + n, n === 5 ? 700_000 : 200_000);
      for (let at = 0; at < bytes.length; at += 9000) sender.raw(bytes.subarray(at, at + 9000));
      for (const byte of bytes) expected[n]!.push(byte);
      await sender.send();
    }
    for (const sink of sinks) await sink.takeAll();
  }
  for (const [n, sink] of sinks.entries()) assert.deepEqual(sink.taken, expected[n]);
});
