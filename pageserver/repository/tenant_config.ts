/**
 * A tenant's own settings and its durable state file `tenants/<tenant>/config`.
 *
 * A sealed file (magic "NTEN"), little endian:
 *
 *   u32 generation | u8 1 attached, 0 detached | u32 length | settings as JSON, UTF-8
 *
 * Settings are kept as they came by HTTP, also those that nothing here follows; the ones that are
 * followed are read by timelineSettings().
 */
import { ByteReader, ByteWriter } from "../../libs/utils/bytes.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import { readSealedFile, sealBytes, type SealedFormat } from "../../libs/utils/sealed_file.ts";
import { replaceFileAsync } from "./durable_async.ts";
import type { TimelineSettings } from "./timeline.ts";

const FORMAT: SealedFormat = { magic: "NTEN", version: 1, what: "tenant configuration" };
const CONFIG_NAME = "config";

const CHECKPOINT_DISTANCE_DEFAULT = 256 * 1024 * 1024;
/** Layer files address their values with 32 bits. */
const CHECKPOINT_DISTANCE_MAX = 2 * 1024 * 1024 * 1024;
const CHECKPOINT_TIMEOUT_MS_DEFAULT = 600_000;
const COMPACTION_PERIOD_MS_DEFAULT = 20_000;
const COMPACTION_TARGET_SIZE_DEFAULT = 128 * 1024 * 1024;
const COMPACTION_TARGET_SIZE_MAX = 1024 * 1024 * 1024;
const COMPACTION_THRESHOLD_DEFAULT = 10;
const IMAGE_CREATION_THRESHOLD_DEFAULT = 3;
const COUNT_MAX = 1_000_000;

/**
 * Overrides by name, for example {"checkpoint_distance": 268435456, "checkpoint_timeout": "10m"}.
 */
export type TenantConfig = Readonly<Record<string, unknown>>;

/** The durable state of a tenant. */
export interface TenantState {
  readonly generation: number;
  readonly attached: boolean;
  readonly config: TenantConfig;
}

/** Atomically and durably replaces the state of the tenant in `directory`. */
export async function writeTenantState(directory: string, state: TenantState): Promise<void> {
  const config = new TextEncoder().encode(JSON.stringify(state.config));
  const writer = new ByteWriter("little", 16 + config.length);
  writer.u32(state.generation).u8(state.attached ? 1 : 0).u32(config.length).raw(config);
  await replaceFileAsync(`${directory}/${CONFIG_NAME}`, sealBytes(FORMAT, writer.bytes()));
}

/** Reads the state of the tenant in `directory`. Throws Corrupt, or Deno.errors.NotFound. */
export function readTenantState(directory: string): TenantState {
  const path = `${directory}/${CONFIG_NAME}`;
  const reader = new ByteReader(readSealedFile(path, FORMAT).body, "little", path);
  const generation = reader.u32();
  const attached = reader.u8() === 1;
  const config = JSON.parse(new TextDecoder().decode(reader.raw(reader.u32()))) as TenantConfig;
  reader.end();
  return { generation, attached, config };
}

const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of a text like "10m" or "250ms". Throws BadRequest naming `name`. */
function parseDuration(name: string, value: unknown): number {
  const match = typeof value === "string" ? /^(\d+)\s*(ms|s|m|h|d)$/.exec(value) : null;
  if (match === null) {
    throw new BadRequest(
      `Cannot use ${name} (expected a duration like "10m"): current value is ${value}`,
    );
  }
  return Number(match[1]) * UNITS_MS[match[2]!]!;
}

/** A whole number from 1 to `max`, to which greater ones are cut. */
function parseNumber(name: string, value: unknown, unit: "bytes" | "a number", max: number) {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1) {
    throw new BadRequest(`Cannot use ${name} (expected ${unit}): current value is ${value}`);
  }
  return Math.min(value, max);
}

/** The settings that timelines follow. Throws BadRequest for a value of the wrong form. */
export function timelineSettings(config: TenantConfig): TimelineSettings {
  const bytes = (name: string, byDefault: number, max: number) =>
    parseNumber(name, config[name] ?? byDefault, "bytes", max);
  const count = (name: string, byDefault: number) =>
    parseNumber(name, config[name] ?? byDefault, "a number", COUNT_MAX);
  const duration = (name: string, byDefaultMs: number) =>
    config[name] === undefined ? byDefaultMs : parseDuration(name, config[name]);
  return {
    checkpointDistanceBytes: bytes(
      "checkpoint_distance",
      CHECKPOINT_DISTANCE_DEFAULT,
      CHECKPOINT_DISTANCE_MAX,
    ),
    checkpointTimeoutMs: duration("checkpoint_timeout", CHECKPOINT_TIMEOUT_MS_DEFAULT),
    compactionPeriodMs: duration("compaction_period", COMPACTION_PERIOD_MS_DEFAULT),
    compactionTargetBytes: bytes(
      "compaction_target_size",
      COMPACTION_TARGET_SIZE_DEFAULT,
      COMPACTION_TARGET_SIZE_MAX,
    ),
    compactionThreshold: count("compaction_threshold", COMPACTION_THRESHOLD_DEFAULT),
    imageCreationThreshold: count("image_creation_threshold", IMAGE_CREATION_THRESHOLD_DEFAULT),
  };
}
