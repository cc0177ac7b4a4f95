/**
 * An S3 bucket as remote storage, Amazon's or another maker's (`endpoint`, then with path-style
 * addresses and without the newer checksums). Credentials come from the environment:
 * AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN.
 *
 * Small objects are one request, larger ones are sent in parts. Loaded only where a bucket is
 * configured: the SDK takes 0.2 s and 30 MB. It makes one attempt; trying again is ours.
 */
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { Readable } from "node:stream";
import { BadRequest, messageOf, NotFound, Unavailable } from "../utils/errors.ts";
import type { Backend, ByteRange, Incoming, ListPage, UploadSource } from "./backend.ts";

/** Larger objects are sent in parts. */
const SINGLE_PUT_BYTES = 64 * 1024 * 1024;
/** Bytes of a part, at least; four of them are in memory for each upload. */
const PART_BYTES = 8 * 1024 * 1024;
/** S3's own limit. */
const PARTS_MAX = 10_000;

/** Which bucket, and where. */
interface S3Location {
  readonly bucket: string;
  readonly region: string;
  /** URL of another maker's store. */
  readonly endpoint?: string | undefined;
  /** In front of all keys, with a "/" at its end, or empty. */
  readonly prefix: string;
  /** Keys in one page of a listing; undefined: as many as the store likes. */
  readonly listMax?: number | undefined;
  /** Objects of more bytes than this are sent in parts. */
  readonly singlePutBytes?: number | undefined;
}

/** What the SDK would say of a failure is in the error that it throws. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** Reads one variable of the environment. */
type Environment = (name: string) => string | undefined;

/** See the head of the file. */
export class S3Bucket implements Backend {
  readonly name: string;
  readonly keysMax = 1000;
  readonly #location: S3Location;
  readonly #client: S3Client;

  /** Throws BadRequest if the credentials are missing. */
  constructor(location: S3Location, environment: Environment) {
    this.#location = location;
    this.name = `bucket "${location.bucket}"`;
    const { endpoint, region } = location;
    this.#client = new S3Client({
      region,
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      credentials: credentials(environment),
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      maxAttempts: 1,
      // Everything that the SDK would otherwise look up in files of the user or ask the system.
      retryMode: "standard",
      defaultsMode: "legacy",
      useFipsEndpoint: false,
      useDualstackEndpoint: false,
      useArnRegion: false,
      disableMultiregionAccessPoints: true,
      disableS3ExpressSessionAuth: true,
      userAgentAppId: "neon",
      logger: SILENT,
      defaultUserAgentProvider: () => Promise.resolve([["neon", "1"]]),
    });
  }

  async put(key: string, source: UploadSource, cancelled: AbortSignal): Promise<void> {
    const body = Readable.from(source.open(), { objectMode: false });
    // An error of the source, which is no fault of the store; without a listener it would be fatal.
    let sourceError: unknown;
    const control = new AbortController();
    body.on("error", (thrown) => {
      sourceError ??= thrown;
      control.abort(); // the store would wait for the rest
    });
    const signal = AbortSignal.any([control.signal, cancelled]);
    const object = { Bucket: this.#location.bucket, Key: this.#location.prefix + key, Body: body };
    try {
      if (source.bytes <= (this.#location.singlePutBytes ?? SINGLE_PUT_BYTES)) {
        const put = new PutObjectCommand({ ...object, ContentLength: source.bytes });
        await this.#client.send(put, { abortSignal: signal });
      } else {
        await this.#putInParts(object, source.bytes, signal);
      }
      if (sourceError !== undefined) throw sourceError;
    } catch (thrown) {
      throw sourceError ?? this.#error(thrown, key);
    } finally {
      body.destroy();
    }
  }

  async #putInParts(
    object: { Bucket: string; Key: string; Body: Readable },
    bytes: number,
    signal: AbortSignal,
  ): Promise<void> {
    const upload = new Upload({
      client: this.#client,
      params: object,
      partSize: Math.max(PART_BYTES, Math.ceil(bytes / PARTS_MAX)),
    });
    const abort = () => void upload.abort();
    signal.addEventListener("abort", abort);
    try {
      signal.throwIfAborted();
      await upload.done();
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  async get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Incoming> {
    try {
      const answer = await this.#client.send(
        new GetObjectCommand({
          Bucket: this.#location.bucket,
          Key: this.#location.prefix + key,
          ...(range === undefined ? {} : { Range: `bytes=${range.start}-${range.end - 1}` }),
        }),
        { abortSignal: signal },
      );
      const bytes = answer.ContentLength;
      if (bytes === undefined || answer.Body === undefined) {
        throw new Unavailable(`${this.name} does not say how long "${key}" is`);
      }
      const body = answer.Body as Readable;
      if (range !== undefined && bytes !== range.end - range.start) {
        body.destroy();
        const wanted = `bytes ${range.start} to ${range.end} of "${key}"`;
        throw new BadRequest(`Cannot read ${wanted}: ${this.name} sends ${bytes}`);
      }
      return { bytes, body: this.#pieces(key, body, signal) };
    } catch (thrown) {
      throw this.#error(thrown, key);
    }
  }

  async *#pieces(key: string, body: Readable, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const stop = () => body.destroy(new Error("aborted"));
    signal.addEventListener("abort", stop);
    try {
      for await (const piece of body) yield piece;
    } catch (thrown) {
      throw this.#error(thrown, key);
    } finally {
      signal.removeEventListener("abort", stop);
      body.destroy();
    }
  }

  async list(prefix: string, after: string | undefined, signal: AbortSignal): Promise<ListPage> {
    const { bucket, prefix: mine, listMax } = this.#location;
    try {
      const answer = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: bucket,
          Prefix: mine + prefix,
          ...(after === undefined ? {} : { StartAfter: mine + after }),
          ...(listMax === undefined ? {} : { MaxKeys: listMax }),
        }),
        { abortSignal: signal },
      );
      const objects = (answer.Contents ?? []).map(({ Key, Size }) => ({
        key: Key!.slice(mine.length),
        bytes: Size ?? 0,
      }));
      return { objects, more: answer.IsTruncated === true && objects.length > 0 };
    } catch (thrown) {
      throw this.#error(thrown, prefix);
    }
  }

  async remove(keys: readonly string[], signal: AbortSignal): Promise<void> {
    const { bucket, prefix } = this.#location;
    try {
      const answer = await this.#client.send(
        new DeleteObjectsCommand({
          Bucket: bucket,
          Delete: { Objects: keys.map((key) => ({ Key: prefix + key })), Quiet: true },
        }),
        { abortSignal: signal },
      );
      const failed = answer.Errors?.find(({ Code }) => Code !== "NoSuchKey");
      if (failed === undefined) return;
      throw new Unavailable(`"${failed.Key}" was not deleted: ${failed.Code} ${failed.Message}`);
    } catch (thrown) {
      throw this.#error(thrown, keys[0]!);
    }
  }

  /** What an error of the SDK means. */
  #error(thrown: unknown, key: string): unknown {
    const known = [NotFound, BadRequest, Unavailable].some((kind) => thrown instanceof kind);
    if (known || !(thrown instanceof Error)) return thrown;
    const status = (thrown as { $metadata?: { httpStatusCode?: number } }).$metadata
      ?.httpStatusCode;
    const message = `${thrown.name}: ${messageOf(thrown)}`;
    if (thrown.name === "NoSuchKey") {
      return new NotFound(`Cannot find "${key}" in ${this.name}`);
    }
    const passes = status === undefined || status < 400 || status >= 500 ||
      [408, 425, 429].includes(status) || thrown.name === "RequestTimeout";
    return passes
      ? new Unavailable(message)
      : new BadRequest(`Cannot use "${key}" in ${this.name}: ${message}`);
  }
}

function credentials(environment: Environment) {
  const accessKeyId = environment("AWS_ACCESS_KEY_ID");
  const secretAccessKey = environment("AWS_SECRET_ACCESS_KEY");
  const sessionToken = environment("AWS_SESSION_TOKEN");
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new BadRequest(
      "Cannot use an S3 bucket: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
    );
  }
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
}
