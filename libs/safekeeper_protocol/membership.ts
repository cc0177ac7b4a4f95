/**
 * Membership configuration of a timeline: which safekeepers hold it.
 *
 * Generations only rise. While `newMembers` is set the configuration is joint: every decision then
 * needs a majority of both lists, so that two disjoint majorities never exist during a change.
 * Generation 0 is "not configured": its lists may be empty and nothing is checked against it.
 *
 * Wire form, big endian: u32 generation, u32 n, n members, u32 n new, n new members (0 = not
 * joint); a member is u64 node id, host as NUL-terminated text, u16 port.
 */
import type { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { readSafeU64 } from "./wire.ts";

/** One safekeeper of a configuration. */
export interface Member {
  readonly id: number;
  readonly host: string;
  readonly pgPort: number;
}

/** The safekeepers of a timeline, as of `generation`. */
export interface MembershipConfiguration {
  readonly generation: number;
  readonly members: readonly Member[];
  /** Set while the configuration changes: both lists then need a majority. */
  readonly newMembers?: readonly Member[];
}

/** The configuration before any is known. */
export const NO_MEMBERSHIP: MembershipConfiguration = { generation: 0, members: [] };

/** Neon's limit on safekeepers of a timeline. */
export const MEMBERS_MAX = 32;

function writeMembers(writer: ByteWriter, members: readonly Member[]): void {
  writer.u32(members.length);
  for (const m of members) writer.u64(BigInt(m.id)).cstr(m.host).u16(m.pgPort);
}

function readMembers(reader: ByteReader): Member[] {
  const count = reader.u32();
  if (count > MEMBERS_MAX) {
    throw new Corrupt(`Cannot read a membership configuration: it claims ${count} members`);
  }
  const members: Member[] = [];
  for (let i = 0; i < count; i++) {
    members.push({ id: readSafeU64(reader), host: reader.cstr(), pgPort: reader.u16() });
  }
  return members;
}

/** Appends a configuration to a message. */
export function writeMembership(writer: ByteWriter, conf: MembershipConfiguration): void {
  writer.u32(conf.generation);
  writeMembers(writer, conf.members);
  writeMembers(writer, conf.newMembers ?? []);
}

/** Reads a configuration. */
export function readMembership(reader: ByteReader): MembershipConfiguration {
  const generation = reader.u32();
  const members = readMembers(reader);
  const newMembers = readMembers(reader);
  if (generation > 0 && members.length === 0) {
    throw new Corrupt(`Cannot read a membership configuration: generation ${generation} is empty`);
  }
  return newMembers.length === 0 ? { generation, members } : { generation, members, newMembers };
}

/** True if the safekeeper is in either list; generation 0 contains everyone. */
export function isMember(conf: MembershipConfiguration, id: number): boolean {
  return conf.generation === 0 || conf.members.some((m) => m.id === id) ||
    (conf.newMembers?.some((m) => m.id === id) ?? false);
}

/** The safekeepers of both lists, each once. */
export function allMembers({ members, newMembers = [] }: MembershipConfiguration): Member[] {
  return [...members, ...newMembers.filter((m) => !members.some(({ id }) => id === m.id))];
}

/** Whether both have the same safekeepers in the same lists. */
export function hasSameMembers(
  one: MembershipConfiguration,
  other: MembershipConfiguration,
): boolean {
  const isSame = (a: readonly Member[] = [], b: readonly Member[] = []) =>
    a.length === b.length && a.every(({ id }) => b.some((m) => m.id === id));
  return isSame(one.members, other.members) && isSame(one.newMembers, other.newMembers);
}

/** A configuration as JSON, with Neon's field names. */
export interface MembershipJson {
  readonly generation: number;
  readonly members: readonly MemberJson[];
  readonly new_members: readonly MemberJson[] | null;
}

interface MemberJson {
  readonly id: number;
  readonly host: string;
  readonly pg_port: number;
}

/** A configuration as JSON. */
export function membershipJson(conf: MembershipConfiguration): MembershipJson {
  const json = (list: readonly Member[]) =>
    list.map(({ id, host, pgPort }) => ({ id, host, pg_port: pgPort }));
  const { generation, members, newMembers } = conf;
  return {
    generation,
    members: json(members),
    new_members: newMembers === undefined ? null : json(newMembers),
  };
}

/** A configuration out of JSON. */
export function membershipOf(json: MembershipJson): MembershipConfiguration {
  const list = (members: readonly MemberJson[]) =>
    members.map(({ id, host, pg_port }) => ({ id, host, pgPort: pg_port }));
  const conf = { generation: json.generation, members: list(json.members) };
  return json.new_members === null ? conf : { ...conf, newMembers: list(json.new_members) };
}
