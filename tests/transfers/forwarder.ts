/**
 * The network between the compute host and one safekeeper: a TCP forwarder that a test can cut.
 *
 * A way that is cut loses nothing, as a real network under TCP: what was sent into it, the end of
 * a connection too, waits in the sockets and arrives when the way is open again, even if its sender
 * is gone by then. A network that refuses ends all connections instead, and each new one.
 */

/** The two ways of a connection. */
type Way = "to the safekeeper" | "to the compute";

const BUFFER_BYTES = 64 * 1024;

/** One way: open, or cut until `opened` resolves. */
class Gate {
  #opened: PromiseWithResolvers<void> | undefined;

  cut(): void {
    this.#opened ??= Promise.withResolvers();
  }

  open(): void {
    this.#opened?.resolve();
    this.#opened = undefined;
  }

  /** Resolves when the way is open. */
  async pass(): Promise<void> {
    while (this.#opened !== undefined) await this.#opened.promise;
  }
}

/** See the head of the file. Ends with the object. */
export class Forwarder implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #targetPort: number;
  readonly #gates: Record<Way, Gate> = {
    "to the safekeeper": new Gate(),
    "to the compute": new Gate(),
  };
  readonly #connections: Set<Deno.Conn> = new Set();
  readonly #running: Set<Promise<void>> = new Set();
  #refuses = false;

  /** Forwards connections to a port of this machine. */
  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#run(this.#accept());
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** From now on nothing gets through on these ways. */
  cut(ways: readonly Way[]): void {
    for (const way of ways) this.#gates[way].cut();
  }

  /** From now on connections end, those that there are and each new one. */
  refuse(): void {
    this.#refuses = true;
    this.#closeAll();
  }

  /** Everything gets through again. */
  mend(): void {
    this.#refuses = false;
    for (const gate of Object.values(this.#gates)) gate.open();
  }

  #run(work: Promise<void>): void {
    const quiet = work.catch(() => {}); // a connection that breaks is what this is for
    this.#running.add(quiet);
    quiet.then(() => this.#running.delete(quiet));
  }

  async #accept(): Promise<void> {
    for await (const connection of this.#listener) {
      if (this.#refuses) connection.close();
      else this.#run(this.#serve(connection));
    }
  }

  async #serve(compute: Deno.TcpConn): Promise<void> {
    this.#connections.add(compute);
    let safekeeper: Deno.TcpConn | undefined;
    try {
      safekeeper = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
      this.#connections.add(safekeeper);
      compute.setNoDelay(true);
      safekeeper.setNoDelay(true);
      if (this.#refuses) return;
      await Promise.race([
        this.#pump(compute, safekeeper, this.#gates["to the safekeeper"]),
        this.#pump(safekeeper, compute, this.#gates["to the compute"]),
      ]);
    } finally {
      this.#close(compute);
      if (safekeeper !== undefined) this.#close(safekeeper);
    }
  }

  /** Moves bytes until an end of the connection has arrived at the other one. */
  async #pump(from: Deno.Conn, to: Deno.Conn, gate: Gate): Promise<void> {
    const buffer = new Uint8Array(BUFFER_BYTES);
    for (;;) {
      const count = await from.read(buffer).catch(() => null);
      await gate.pass();
      if (count === null) return;
      for (let done = 0; done < count;) done += await to.write(buffer.subarray(done, count));
    }
  }

  #close(connection: Deno.Conn): void {
    if (this.#connections.delete(connection)) connection.close();
  }

  #closeAll(): void {
    for (const connection of this.#connections) this.#close(connection);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.refuse();
    for (const gate of Object.values(this.#gates)) gate.open();
    this.#listener.close();
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
