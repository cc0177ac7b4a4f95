/**
 * Settings of a tenant as they are given on the command line, "key:value". The names are Neon's; an
 * unknown one is an error, because it is a typing error more often than not.
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { didYouMean } from "./suggest.ts";

/** Overrides of a tenant's settings. */
export type TenantSettings = Record<string, string | number | boolean>;

/** The form that a setting's value has. */
type Form = "bytes" | "count" | "duration" | "flag" | "any";

/** What the pageserver goes by. */
const FOLLOWED: Readonly<Record<string, Form>> = {
  checkpoint_distance: "bytes",
  checkpoint_timeout: "duration",
  compaction_period: "duration",
  compaction_target_size: "bytes",
  compaction_threshold: "count",
  image_creation_threshold: "count",
};

/** What is stored for a later version to go by. */
const STORED: Readonly<Record<string, Form>> = {
  compaction_algorithm: "any",
  compaction_upper_limit: "count",
  eviction_policy: "any",
  gc_compaction_enabled: "flag",
  gc_horizon: "bytes",
  gc_period: "duration",
  heatmap_period: "duration",
  image_layer_creation_check_threshold: "count",
  lagging_wal_timeout: "duration",
  lazy_slru_download: "flag",
  lsn_lease_length: "duration",
  lsn_lease_length_for_ts: "duration",
  max_lsn_wal_lag: "bytes",
  min_resident_size_override: "bytes",
  pitr_interval: "duration",
  timeline_get_throttle: "any",
  timeline_offloading: "flag",
  walreceiver_connect_timeout: "duration",
};

const FORMS: Readonly<Record<Form, { pattern: RegExp; expected: string }>> = {
  bytes: { pattern: /^\d{1,15}$/, expected: "a number of bytes" },
  count: { pattern: /^\d{1,9}$/, expected: "a whole number" },
  duration: { pattern: /^\d{1,9}\s*(ms|s|m|h|d)$/, expected: 'a duration such as "10m"' },
  flag: { pattern: /^(true|false)$/, expected: "true or false" },
  any: { pattern: /^\P{Cc}+$/u, expected: "a value" },
};

function parseValue(key: string, form: Form, text: string): string | number | boolean {
  const { pattern, expected } = FORMS[form];
  if (!pattern.test(text)) {
    throw new BadRequest(`Cannot set ${key} to "${text}": expected ${expected}`);
  }
  if (form === "flag") return text === "true";
  return form === "bytes" || form === "count" ? Number(text) : text;
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
    const form = Object.hasOwn(FOLLOWED, key)
      ? FOLLOWED[key]
      : Object.hasOwn(STORED, key)
      ? STORED[key]
      : undefined;
    if (form === undefined) {
      const known = Object.keys({ ...FOLLOWED, ...STORED }).sort();
      const hint = didYouMean(key, known) || `; there are ${known.join(", ")}`;
      throw new BadRequest(`Cannot set "${key}": there is no such setting${hint}`);
    }
    settings[key] = parseValue(key, form, text.slice(colon + 1));
  }
  return settings;
}

/** The settings among these that nothing goes by yet. */
export function settingsWithoutEffect(settings: TenantSettings): string[] {
  return Object.keys(settings).filter((key) => Object.hasOwn(STORED, key));
}
