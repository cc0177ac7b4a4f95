/** Damage to the files of a state directory, and what is said about it. */

/** A file (below the state directory) with other contents. */
export interface Damage {
  readonly file: string;
  readonly change: (text: string) => string;
  /** Must be in the error of whatever reads the file. */
  readonly says: RegExp;
}

function replaced(from: string | RegExp, to: string): (text: string) => string {
  return (text) => {
    const changed = text.replace(from, to);
    if (changed === text) throw new Error(`Cannot damage the file: there is no ${from} in it`);
    return changed;
  };
}

/** Of `.neon/config`. */
export const CONFIG_DAMAGE: readonly Damage[] = ([
  [() => "", /format_version is missing/],
  [(text) => text.slice(0, text.length / 2), /mend it, or put a copy of it back/],
  [(text) => text.slice(0, 30), /Cannot use/],
  [() => "format_version = = 1", /Invalid TOML.*line 1/],
  [() => "\0\0\0\0", /Invalid TOML/],
  [replaced("format_version = 1", "format_version = 2"), /newer .*use the neon that wrote it/],
  [replaced("format_version = 1", "format_version = 0"), /format_version must be/],
  [replaced("format_version = 1", 'format_version = "1"'), /format_version must be/],
  [replaced("pg_version = 17", "pg_version = 17\ncolour = 1"), /colour is not a known key/],
  [replaced("pg_version = 17", "pg_version = 99"), /pg_version must be .* from 14 to 18/],
  [replaced(/default_tenant_id = ".*"/, 'default_tenant_id = "x"'), /default_tenant_id must be/],
  [replaced(/^pg_port = \d+/m, "pg_port = 99999"), /safekeepers\[0\].pg_port must be .* 65535/],
  [replaced(/^pg_port = \d+/m, 'pg_port = "x"'), /safekeepers\[0\].pg_port must be .*"x"/],
  [replaced("[broker]", "[breaker]"), /breaker is not a known key/],
  [replaced("[[safekeepers]]", "[safekeepers]"), /safekeepers must be a list/],
  [replaced(/listen_pg_addr = ".*"/, 'listen_pg_addr = "here"'), /host:port/],
  [replaced(/listen_pg_addr = ".*"/, 'listen_pg_addr = "127.0.0.1:65536"'), /host:port/],
  [replaced(/\[branch_name_mappings\][^]*/, "branch_name_mappings = 5"), /./],
] as [Damage["change"], RegExp][]).map(([change, says]) => ({ file: "config", change, says }));

/** Of the record of an endpoint or a tenant, which is JSON. */
export function recordDamage(file: string): Damage[] {
  return ([
    [() => "", /is not JSON; mend it/],
    [(text) => text.slice(0, text.length / 2), /is not JSON; mend it/],
    [() => "null", /must be a table/],
    [() => "[]", /must be a table/],
    [() => "{}", /is missing/],
    [replaced('"pg_version": 17', '"pg_version": "x"'), /pg_version must be/],
    [replaced('"pg_version": 17', '"pg_version": 17, "colour": 1'), /colour is not a known key/],
    [replaced(/"[0-9a-f]{32}"/, '"x"'), /must be an id of 32 hex digits/],
  ] as [Damage["change"], RegExp][]).map(([change, says]) => ({ file, change, says }));
}
