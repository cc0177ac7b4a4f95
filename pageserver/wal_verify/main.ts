/**
 * The program behind `neon wal verify`; it may read the copy and the WAL, and nothing else.
 *
 *   main.ts --pgdata DIR --wal PATH [--start LSN] [--end LSN] [--show N] [--json]
 *     [--after DIR] [--memory MB --spill FILE]
 *
 * The report goes to standard output, progress to standard error. Exit code 0: no differences; 1:
 * differences, or records that could not be replayed; 2: it could not be verified.
 */
import { parseArgs } from "node:util";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { parseLsn } from "../../libs/utils/lsn.ts";
import { reportJson, reportLines } from "./report.ts";
import { verify } from "./verify.ts";

const MEGABYTE = 1024 * 1024;
const encoder = new TextEncoder();

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
}

function progress(bytes: number, ofBytes: number, records: number): void {
  const [done, all] = [bytes, ofBytes].map((count) => (count / 1e6).toFixed(0));
  const line = `replayed ${done} of ${all} MB, ${records} records`;
  write(Deno.stderr, Deno.stderr.isTerminal() ? `\r\x1b[K${line}` : `${line}\n`);
}

function main(): number {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      pgdata: { type: "string" },
      wal: { type: "string" },
      start: { type: "string" },
      end: { type: "string" },
      show: { type: "string", default: "3" },
      json: { type: "boolean", default: false },
      after: { type: "string" },
      memory: { type: "string", default: "1024" },
      spill: { type: "string" },
    },
  });
  const result = verify({
    pgdata: values.pgdata ?? "",
    wal: values.wal ?? "",
    start: values.start === undefined ? undefined : parseLsn(values.start),
    end: values.end === undefined ? undefined : parseLsn(values.end),
    after: values.after,
    pagesMax: Math.floor(Number(values.memory) * MEGABYTE / PAGE_SIZE),
    spillPath: values.spill,
    now: () => performance.now(),
    memory: () => Deno.memoryUsage().rss,
    onProgress: progress,
  });
  if (Deno.stderr.isTerminal()) write(Deno.stderr, "\r\x1b[K");
  const show = Number(values.show);
  const text = values.json
    ? JSON.stringify(reportJson(result, show), null, 2)
    : reportLines(result, show).join("\n");
  write(Deno.stdout, `${text}\n`);
  const different = result.checker.differenceCount + (result.after?.differences.length ?? 0);
  return different + result.checker.failed.size > 0 ? 1 : 0;
}

if (import.meta.main) {
  try {
    Deno.exitCode = main();
  } catch (thrown) {
    write(Deno.stderr, `error: ${messageOf(thrown)}\n`);
    Deno.exitCode = 2;
  }
}
