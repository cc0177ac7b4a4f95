/**
 * For tests: an S3 server that is not ours (s3rver), and a forwarder in front of it that fails on
 * demand.
 */
import { Buffer } from "node:buffer";
import crypto from "node:crypto";
import http from "node:http";
import type { AddressInfo } from "node:net";
import S3rver from "s3rver";

/** What goes wrong with a request. */
export type Fault =
  /** 503 instead of an answer; the server does not see the request. */
  | "refused"
  /** The connection is reset before the server sees the request. */
  | "reset"
  /** The server does what it is asked, and its answer is lost. */
  | "answer lost"
  /** Half of the answer's body comes, then the connection ends. */
  | "truncated"
  /** No answer comes. */
  | "silent";

/** The bucket that there is. */
export const TEST_BUCKET = "wal-bucket";

/** What s3rver takes for credentials. */
export const TEST_CREDENTIALS: Readonly<Record<string, string>> = {
  AWS_ACCESS_KEY_ID: "S3RVER",
  AWS_SECRET_ACCESS_KEY: "S3RVER",
};

/**
 * s3rver makes the tokens of its listings with single DES, which Deno does not have. Nobody has to
 * understand them but s3rver itself.
 */
function replaceDes(): void {
  const original = crypto.createCipheriv;
  crypto.createCipheriv = ((algorithm: string, ...rest: [crypto.CipherKey, Uint8Array]) => {
    if (algorithm !== "des") return original(algorithm, ...rest);
    return { update: (text: string) => Buffer.from(text), final: () => Buffer.alloc(0) };
  }) as typeof crypto.createCipheriv;
}

/** See the head of the file. Ends with the object. */
export class TestS3 implements AsyncDisposable {
  /** URL of the forwarder. */
  readonly endpoint: string;
  /** URL of the server itself. */
  readonly directEndpoint: string;
  /** What happens to the next requests, in order; then nothing. */
  readonly faults: Fault[] = [];
  /** Requests that came, for example "PUT /wal-bucket/a". */
  readonly seen: string[] = [];
  readonly #server: InstanceType<typeof S3rver>;
  readonly #forwarder: http.Server;
  readonly #directory: string;

  private constructor(
    server: InstanceType<typeof S3rver>,
    directory: string,
    forwarder: http.Server,
    port: number,
  ) {
    this.#server = server;
    this.#directory = directory;
    this.#forwarder = forwarder;
    this.directEndpoint = `http://127.0.0.1:${port}`;
    this.endpoint = `http://127.0.0.1:${(forwarder.address() as AddressInfo).port}`;
  }

  static async start(): Promise<TestS3> {
    replaceDes();
    const directory = Deno.makeTempDirSync({ prefix: "s3_" });
    const server = new S3rver({
      port: 0,
      address: "127.0.0.1",
      silent: true,
      directory,
      configureBuckets: [{ name: TEST_BUCKET, configs: [] }],
    });
    const { port } = await server.run();
    const forwarder = http.createServer((request, response) =>
      s3.#forward(port, request, response)
    );
    await new Promise<void>((resolve) => forwarder.listen(0, "127.0.0.1", resolve));
    const s3 = new TestS3(server, directory, forwarder, port);
    return s3;
  }

  #forward(port: number, request: http.IncomingMessage, response: http.ServerResponse): void {
    this.seen.push(`${request.method} ${request.url}`);
    const fault = this.faults.shift();
    if (fault === "reset") return void request.socket.destroy();
    if (fault === "silent") return void request.resume();
    if (fault === "refused") {
      request.resume();
      request.on("end", () => response.writeHead(503).end());
      return;
    }
    const { method, url, headers } = request;
    const onward = http.request({
      port,
      host: "127.0.0.1",
      method,
      path: url,
      headers,
      agent: false, // a connection that is kept would keep the server from ending
    });
    onward.on("response", (answer) => {
      const pieces: Buffer[] = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => {
        const body = Buffer.concat(pieces);
        if (fault === "answer lost") return void request.socket.destroy();
        response.writeHead(answer.statusCode!, answer.headers);
        if (fault !== "truncated") return void response.end(body);
        response.write(body.subarray(0, body.length / 2), () => request.socket.destroy());
      });
    });
    onward.on("error", () => request.socket.destroy());
    request.pipe(onward);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forwarder.closeAllConnections();
    await new Promise((resolve) => this.#forwarder.close(resolve));
    await this.#server.close();
    Deno.removeSync(this.#directory, { recursive: true });
  }
}
