/**
 * What a PostgreSQL data directory consists of besides the data (PostgreSQL 17, initdb.c,
 * subdirs[]): directories that must exist, and small files with fixed contents.
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";

const encoder = new TextEncoder();

const DIRECTORIES = [
  "base",
  "global",
  "pg_commit_ts",
  "pg_dynshmem",
  "pg_logical",
  "pg_logical/mappings",
  "pg_logical/snapshots",
  "pg_multixact",
  "pg_multixact/members",
  "pg_multixact/offsets",
  "pg_notify",
  "pg_replslot",
  "pg_serial",
  "pg_snapshots",
  "pg_stat",
  "pg_stat_tmp",
  "pg_subtrans",
  "pg_tblspc",
  "pg_twophase",
  "pg_wal",
  "pg_wal/archive_status",
  "pg_xact",
];

/** First major version with WAL summaries. */
const MAJOR_WITH_SUMMARIES = 17;

/** Directories of a data directory, parents first. */
export function dataDirectories(version: PgVersion): readonly string[] {
  return version.major >= MAJOR_WITH_SUMMARIES ? [...DIRECTORIES, "pg_wal/summaries"] : DIRECTORIES;
}

/** Content of every PG_VERSION. */
export function versionFile(version: PgVersion): Uint8Array {
  return encoder.encode(`${version.major}\n`);
}

/** Files that PostgreSQL wants to find, empty, whoever writes its configuration. */
export const EMPTY_FILES: readonly string[] = ["pg_ident.conf", "postgresql.auto.conf"];

/** Configuration of a full backup, with which stock PostgreSQL boots as it is. */
export const FULL_BACKUP_CONFIGURATION: readonly (readonly [string, Uint8Array])[] = [
  ["postgresql.conf", encoder.encode("# All settings have their defaults.\n")],
  [
    "pg_hba.conf",
    encoder.encode(
      "# TYPE  DATABASE  USER  ADDRESS       METHOD\n" +
        "local   all       all                 trust\n" +
        "host    all       all   127.0.0.1/32  trust\n" +
        "host    all       all   ::1/128       trust\n",
    ),
  ],
];
