/**
 * Default ports. Neon's own, or, where several local Neons share a machine, a block of their own
 * that `neon init --port-base N` gives:
 *
 *                         Neon's          of N
 *     storage broker      50051, 50052    N, N+1
 *     compute host        3080            N+2
 *     pageserver I        64000, 9898     N+10+2(I-1), and the next
 *     safekeeper I        5454, 7676 +I-1 N+20+2(I-1), and the next
 *     endpoints from      55432           N+100
 */
import { BadRequest } from "../../libs/utils/errors.ts";

const BROKER_OFFSET = 0;
const COMPUTE_OFFSET = 2;
const PAGESERVERS_OFFSET = 10;
const PAGESERVERS_MAX = 5;
const SAFEKEEPERS_OFFSET = 20;
const SAFEKEEPERS_MAX = 40;
const ENDPOINTS_OFFSET = 100;

/** Ports below are for privileged programs; above the last there is no room for endpoints. */
const BASE_MIN = 1024;
const BASE_MAX = 65_000;

/** Ports of a service, the one of its protocol first, then the one for HTTP. */
type PortPair = readonly [number, number];

/** Which ports are the default. */
interface PortPlan {
  readonly broker: PortPair;
  readonly compute: number;
  readonly firstEndpoint: number;
  pageserver(id: number): PortPair;
  safekeeper(id: number): PortPair;
}

const NEON_PORTS: PortPlan = {
  broker: [50051, 50052],
  compute: 3080,
  firstEndpoint: 55432,
  pageserver: (id) => [64000 + id - 1, 9898 + id - 1],
  safekeeper: (id) => [5454 + id - 1, 7676 + id - 1],
};

function nth(base: number, offset: number, id: number, max: number, what: string): PortPair {
  if (id > max) {
    throw new BadRequest(`Cannot choose ports for ${what} ${id}: --port-base has room for ${max}`);
  }
  const first = base + offset + 2 * (id - 1);
  return [first, first + 1];
}

/** The default ports; `base` is that of --port-base. Throws BadRequest if it cannot be one. */
export function portPlan(base: number | undefined): PortPlan {
  if (base === undefined) return NEON_PORTS;
  if (base < BASE_MIN || base > BASE_MAX) {
    throw new BadRequest(`Cannot use port base ${base}: use one from ${BASE_MIN} to ${BASE_MAX}`);
  }
  return {
    broker: [base + BROKER_OFFSET, base + BROKER_OFFSET + 1],
    compute: base + COMPUTE_OFFSET,
    firstEndpoint: base + ENDPOINTS_OFFSET,
    pageserver: (id) => nth(base, PAGESERVERS_OFFSET, id, PAGESERVERS_MAX, "pageserver"),
    safekeeper: (id) => nth(base, SAFEKEEPERS_OFFSET, id, SAFEKEEPERS_MAX, "safekeeper"),
  };
}
