/**
 * Logging: one thin layer over LogTape. A daemon configures it once in main.ts and everything else
 * asks for a logger by name. Lines go to standard error, which the starter has pointed at the
 * daemon's log file.
 */
import { configureSync, getLogger, type Logger, type LogRecord } from "@logtape/logtape";

/** A named logger; use `log.info("text {value}", { value })`. */
export type Log = Logger;

/** A logger of this program, for example `logger("safekeeper", "wal")`. */
export function logger(...name: string[]): Log {
  return getLogger(["neon", ...name]);
}

function line(record: LogRecord): string {
  const message = record.message.map((part, i) =>
    i % 2 === 0 ? part : typeof part === "string" ? part : Deno.inspect(part)
  ).join("");
  const time = new Date(record.timestamp).toISOString();
  return `${time} ${record.level.toUpperCase()} ${
    record.category.slice(1).join(".")
  }: ${message}\n`;
}

/** How much is logged: lines of this level and of those after it. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** Sends all log lines of at least `level` to standard error. Call once, at the start of a daemon. */
export function configureLogging(level: LogLevel): void {
  const encoder = new TextEncoder();
  configureSync({
    reset: true,
    sinks: {
      stderr: (record: LogRecord) => {
        try {
          Deno.stderr.writeSync(encoder.encode(line(record)));
        } catch {
          // The disk of the log is full: what is logged must not suffer from it
        }
      },
    },
    loggers: [
      { category: ["neon"], lowestLevel: level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
    ],
  });
}
