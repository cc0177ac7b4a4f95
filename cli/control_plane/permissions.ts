/**
 * What each daemon may touch: the narrowest Deno permission flags, one function a role.
 *
 * A daemon reads and writes its own directory, listens on its own addresses, connects to the roles
 * it talks to, and loads one native add-on (CRC-32C). Nothing else: no other files, hosts, programs
 * or environment. Only the compute host may start a program, and only our launcher by its exact
 * path, which in turn starts nothing but PostgreSQL. Code needs no permission: it is imported from
 * the source tree and Deno's cache, where nothing may write. But Deno reads the code of a worker:
 * so the pageserver may read the folders that its worker is imported from.
 *
 * testdata/permissions.txt shows the flags of a whole local Neon.
 */
import { BadRequest } from "../../libs/utils/errors.ts";

/** Flags of every daemon: never ask, never fetch code, import none from the network. */
const COMMON = ["--no-prompt", "--cached-only", "--no-remote"];

/**
 * Variables that the gRPC library looks at when it is loaded: its own tuning. They are not in the
 * daemons' environment unless the user set them.
 */
const GRPC_ENVIRONMENT = "GRPC_*";

/**
 * Variables that the S3 library looks at: credentials, and where the user's files would be, which
 * it may not read.
 */
const S3_ENVIRONMENT = "AWS_*,HOME,USERPROFILE,HOMEPATH,HOMEDRIVE,_X_AMZN_TRACE_ID";

/** Of every daemon. */
interface CommonAccess {
  /** What it verifies tokens with, if it wants any: a file or a directory. */
  publicKeys?: string | undefined;
}

/** What the flags of the broker follow from. */
interface BrokerAccess extends CommonAccess {
  directory: string;
  listen: string[];
}

/** What the flags of a safekeeper or a pageserver follow from. */
interface StorageAccess extends CommonAccess {
  directory: string;
  listen: string[];
  /** Addresses it connects to, as host:port. */
  connect: string[];
  /** Native add-ons, loaded in place of slower TypeScript where they are installed. */
  addons: string[];
  /** Where there is remote storage: its directory, or the hosts of its bucket. */
  remote?: { directories: string[]; hosts: string[] };
}

/** What the flags of the compute host follow from. */
interface ComputeAccess extends CommonAccess {
  directory: string;
  listen: string[];
  connect: string[];
  addons: string[];
  /** Unix sockets: the path under which it opens PostgreSQL's, and the one where it listens. */
  sockets: string[];
  /** The launcher, the only program that may be started. */
  launcher: string;
}

/** Throws BadRequest for a path with a comma, which Deno takes for two paths. */
function flag(name: string, values: string[]): string[] {
  const split = values.find((value) => value.includes(","));
  if (split !== undefined) {
    throw new BadRequest(
      `Cannot limit a daemon to "${split}": a path may have no comma in it; choose another one`,
    );
  }
  return values.length === 0 ? [] : [`--allow-${name}=${values.join(",")}`];
}

function publicKeys(access: CommonAccess): string[] {
  return access.publicKeys === undefined ? [] : [access.publicKeys];
}

/** Flags of the storage broker. */
export function brokerPermissions(access: BrokerAccess): string[] {
  return [
    ...COMMON,
    ...flag("net", access.listen),
    ...flag("read", [access.directory, ...publicKeys(access)]),
    ...flag("write", [access.directory]),
    `--allow-env=${GRPC_ENVIRONMENT}`,
  ];
}

/** What the flags of a pageserver follow from. */
interface PageserverAccess extends StorageAccess {
  /** Folders with the code of its workers. */
  workerCode: string[];
}

/** Flags of a safekeeper. */
export function safekeeperPermissions(access: StorageAccess): string[] {
  return storagePermissions(access, []);
}

/** Flags of a pageserver. */
export function pageserverPermissions(access: PageserverAccess): string[] {
  return storagePermissions(access, access.workerCode);
}

function storagePermissions(access: StorageAccess, code: string[]): string[] {
  const { directories, hosts } = access.remote ?? { directories: [], hosts: [] };
  return [
    ...COMMON,
    ...flag("net", [...access.listen, ...access.connect, ...hosts]),
    ...flag("read", [
      access.directory,
      ...code,
      ...directories,
      ...publicKeys(access),
    ]),
    ...flag("write", [access.directory, ...directories]),
    `--allow-env=${GRPC_ENVIRONMENT}${hosts.length === 0 ? "" : `,${S3_ENVIRONMENT}`}`,
    ...flag("ffi", access.addons),
  ];
}

/**
 * Flags of the compute host. Endpoint ports are chosen while it runs, but PostgreSQL is reached by
 * its Unix sockets, and these by way of one path in the host's directory; it reaches the host by
 * another one.
 */
export function computePermissions(access: ComputeAccess): string[] {
  return [
    ...COMMON,
    ...flag("net", [
      ...access.listen,
      ...access.connect,
      ...access.sockets.map((path) => `unix:${path}`),
    ]),
    ...flag("read", [access.directory, ...publicKeys(access)]),
    ...flag("write", [access.directory]),
    ...flag("run", [access.launcher]),
    ...flag("ffi", access.addons),
  ];
}
