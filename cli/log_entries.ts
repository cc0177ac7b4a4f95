/**
 * Messages of our daemons and of PostgreSQL, as their log files have them. Pure.
 *
 *   2026-11-21T18:08:06.940Z INFO pageserver.walreceiver: streaming from 127.0.0.1:5454
 *   2026-11-21 18:08:08.379 UTC [10498] LOG:  listening on IPv4 address "127.0.0.1", port 55432
 *
 * A line that begins otherwise belongs to the message before it.
 */

/** A message and where it stands in time. */
export interface LogEntry {
  /** Whose it is: "pageserver", "safekeeper 1", "endpoint main". */
  source: string;
  /** ISO 8601; null where it is not known: the message's beginning, or its time zone. */
  time: string | null;
  /** "INFO", "WARNING", "LOG", "FATAL", ...; null where the line does not say. */
  level: string | null;
  /** Which part of a daemon, or which process of PostgreSQL. */
  origin: string | null;
  message: string;
  /** As they are in the file. */
  lines: string[];
}

const DAEMON = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) ([A-Z]+) ([\w.-]+): (.*)$/;
const POSTGRES = /^(\d{4}-\d\d-\d\d) ([\d:.]+) (\S+) (?:\[(\d+)\] )?(.*)$/;
/** GMT is what it says until it has read its configuration. */
const UTC = /^(UTC|GMT)$/;
const POSTGRES_LEVEL = /(?:^|\s)(DEBUG[1-5]|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC): {2}(.*)$/;
/** These follow their message, with a time of their own. */
const POSTGRES_DETAIL = /(?:^|\s)(?:DETAIL|HINT|CONTEXT|STATEMENT|QUERY|LOCATION): {2}/;

/** Reads the beginning of a message; undefined for a line that is none. */
function parseLine(source: string, line: string): LogEntry | undefined {
  const daemon = DAEMON.exec(line);
  if (daemon !== null) {
    const [, time, level, origin, message] = daemon as unknown as string[];
    return {
      source,
      time: time!,
      level: level!,
      origin: origin!,
      message: message!,
      lines: [line],
    };
  }
  const [, day, clock, zone, pid, rest] = POSTGRES.exec(line) ?? [];
  if (rest === undefined || POSTGRES_DETAIL.test(rest)) return undefined;
  const [, level, message] = POSTGRES_LEVEL.exec(rest) ?? [];
  return {
    source,
    time: UTC.test(zone!) ? `${day}T${clock}Z` : null,
    level: level ?? null,
    origin: pid ?? null,
    message: message ?? rest,
    lines: [line],
  };
}

/** Puts the lines of one file together to messages. */
export function entriesOf(source: string, lines: readonly string[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const line of lines) {
    const begun = parseLine(source, line);
    const last = entries.at(-1);
    if (begun !== undefined) entries.push(begun);
    else if (last === undefined) {
      entries.push({ source, time: null, level: null, origin: null, message: line, lines: [line] });
    } else {
      last.lines.push(line);
      last.message += `\n${line}`;
    }
  }
  return entries;
}

/** Messages of several files in the order of time; those of one file stay in their order. */
export function inOrder(files: readonly (readonly LogEntry[])[]): LogEntry[] {
  const timed: { key: string; entry: LogEntry }[] = [];
  for (const entries of files) {
    let key = "";
    for (const entry of entries) {
      // A clock that was set back must not tear a file apart
      key = entry.time !== null && entry.time > key ? entry.time : key;
      timed.push({ key, entry });
    }
  }
  timed.sort((a, b) => a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
  return timed.map(({ entry }) => entry);
}
