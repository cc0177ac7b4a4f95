/**
 * Settings of a tenant as they are given on the command line, "key:value". The names are Neon's; an
 * unknown one is an error, because it is a typing error more often than not.
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { didYouMean } from "./suggest.ts";

/** Overrides of a tenant's settings. */
export type TenantSettings = Record<string, string | number | boolean>;

/** What the pageserver goes by. */
const FOLLOWED = ["checkpoint_distance", "checkpoint_timeout"];

/** What is stored for a later version to go by. */
const STORED = [
  "compaction_algorithm",
  "compaction_period",
  "compaction_target_size",
  "compaction_threshold",
  "compaction_upper_limit",
  "eviction_policy",
  "gc_compaction_enabled",
  "gc_horizon",
  "gc_period",
  "heatmap_period",
  "image_creation_threshold",
  "image_layer_creation_check_threshold",
  "lagging_wal_timeout",
  "lazy_slru_download",
  "lsn_lease_length",
  "lsn_lease_length_for_ts",
  "max_lsn_wal_lag",
  "min_resident_size_override",
  "pitr_interval",
  "timeline_get_throttle",
  "timeline_offloading",
  "walreceiver_connect_timeout",
];

function parseValue(text: string): string | number | boolean {
  if (text === "true" || text === "false") return text === "true";
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}

/** Parses "key:value" texts. Throws BadRequest for another form or an unknown key. */
export function parseSettings(texts: string[]): TenantSettings {
  const settings: TenantSettings = {};
  for (const text of texts) {
    const colon = text.indexOf(":");
    if (colon <= 0) {
      throw new BadRequest(`Cannot parse the setting "${text}": expected the form key:value`);
    }
    const key = text.slice(0, colon);
    if (!FOLLOWED.includes(key) && !STORED.includes(key)) {
      const known = [...FOLLOWED, ...STORED].sort();
      const hint = didYouMean(key, known) || `; there are ${known.join(", ")}`;
      throw new BadRequest(`Cannot set "${key}": there is no such setting${hint}`);
    }
    settings[key] = parseValue(text.slice(colon + 1));
  }
  return settings;
}

/** The settings among these that nothing goes by yet. */
export function settingsWithoutEffect(settings: TenantSettings): string[] {
  return Object.keys(settings).filter((key) => STORED.includes(key));
}
