/**
 * A small SQL client for machines without psql: runs statements over npm `postgres` and prints what
 * comes back the way psql does. At a prompt, a statement ends with ";"; \q leaves.
 *
 *      id | name
 *     ----+------
 *       1 | one
 *     (1 row)
 */
import postgres from "postgres";
import { messageOf } from "../libs/utils/errors.ts";
import { displayWidth, printHint, printLine } from "./output.ts";

/** Which server, user and database. */
interface SqlTarget {
  host: string;
  port: number;
  user: string;
  database: string;
}

/** One result, values as the server prints them. */
interface TextResult {
  command: string;
  columns: { name: string; type: number }[];
  rows: (string | null)[][];
  count: number | null;
}

/** Type oids of numbers, aligned to the right (pg_type.dat: int8, int2, int4, oid, ...). */
const NUMBER_TYPES = new Set([20, 21, 23, 26, 700, 701, 790, 1700]);

function pad(text: string, width: number, toRight: boolean): string {
  const space = " ".repeat(Math.max(0, width - displayWidth(text)));
  return toRight ? space + text : text + space;
}

function centre(text: string, width: number): string {
  const space = width - displayWidth(text);
  const left = Math.floor(space / 2);
  return " ".repeat(left) + text + " ".repeat(space - left);
}

/** The lines of a result with columns. */
export function resultLines(result: TextResult): string[] {
  const { columns, rows } = result;
  const cells = rows.map((row) => row.map((value) => value ?? ""));
  const widths = columns.map((column, i) =>
    Math.max(displayWidth(column.name), ...cells.map((row) => displayWidth(row[i]!)))
  );
  const line = (parts: string[]) => ` ${parts.join(" | ")}`.trimEnd();
  return [
    line(columns.map((column, i) => centre(column.name, widths[i]!))),
    widths.map((width) => "-".repeat(width + 2)).join("+"),
    ...cells.map((row) =>
      line(row.map((text, i) => pad(text, widths[i]!, NUMBER_TYPES.has(columns[i]!.type))))
    ),
    `(${rows.length} row${rows.length === 1 ? "" : "s"})`,
    "",
  ];
}

type Client = ReturnType<typeof postgres>;

function connect(target: SqlTarget): Client {
  return postgres({
    ...target,
    max: 1,
    fetch_types: false,
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: 10,
    onnotice: (notice) => printHint(`${notice["severity"]}:  ${notice["message"]}`),
  });
}

/** What npm `postgres` gives for a raw query: rows of buffers, with the facts as properties. */
type RawResult = (Uint8Array | null)[][] & {
  command: string;
  count: number | null;
  columns?: { name: string; type: number }[];
};

function toText(result: RawResult): TextResult {
  const decoder = new TextDecoder();
  return {
    command: result.command,
    count: result.count,
    columns: result.columns ?? [],
    rows: result.map((row) => row.map((value) => value === null ? null : decoder.decode(value))),
  };
}

async function query(client: Client, sql: string): Promise<TextResult[]> {
  const answer = await client.unsafe(sql).simple().raw() as unknown as RawResult | RawResult[];
  // Several statements give an array of results, one gives a result, which is an array of rows.
  const several = Array.isArray(answer) && (answer as RawResult).command === undefined;
  return (several ? answer as RawResult[] : [answer as RawResult]).map(toText);
}

function print(result: TextResult): void {
  if (result.columns.length > 0) {
    for (const line of resultLines(result)) printLine(line);
    return;
  }
  const rows = result.count ?? 0;
  const tail = result.command === "INSERT"
    ? ` 0 ${rows}`
    : /^(UPDATE|DELETE|MERGE|COPY|SELECT)$/.test(result.command)
    ? ` ${rows}`
    : "";
  printLine(`${result.command}${tail}`);
}

/** Runs one text of statements and prints results or the error; false if it failed. */
async function runOne(client: Client, sql: string): Promise<boolean> {
  try {
    for (const result of await query(client, sql)) if (result.command) print(result);
    return true;
  } catch (thrown) {
    const { severity_local, detail, hint } = thrown as Record<string, string | undefined>;
    printHint(`${severity_local ?? "ERROR"}:  ${messageOf(thrown)}`);
    if (detail !== undefined) printHint(`DETAIL:  ${detail}`);
    if (hint !== undefined) printHint(`HINT:  ${hint}`);
    return false;
  }
}

/** Runs each text in order; false if one failed. Those after it run all the same, as in psql. */
export async function runCommands(target: SqlTarget, commands: string[]): Promise<boolean> {
  const client = connect(target);
  let succeeded = true;
  try {
    for (const sql of commands) succeeded = await runOne(client, sql) && succeeded;
  } finally {
    await client.end({ timeout: 1 });
  }
  return succeeded;
}

/** Lines of standard input. */
async function* inputLines(): AsyncGenerator<string> {
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== "") yield rest;
}

/** Reads statements from standard input until its end; false if a statement failed. */
export async function runPrompt(target: SqlTarget): Promise<boolean> {
  const terminal = Deno.stdin.isTerminal();
  const encoder = new TextEncoder();
  const client = connect(target);
  let statement = "";
  let succeeded = true;
  const prompt = () => {
    if (!terminal) return;
    const mark = statement === "" ? "=#" : "-#";
    Deno.stdout.writeSync(encoder.encode(`${target.database}${mark} `));
  };
  try {
    prompt();
    for await (const line of inputLines()) {
      if (line.trim() === "\\q") break;
      statement += `${line}\n`;
      if (/;\s*$/.test(statement)) {
        succeeded = await runOne(client, statement) && succeeded;
        statement = "";
      } else if (statement.trim() === "") statement = "";
      prompt();
    }
    if (statement.trim() !== "") succeeded = await runOne(client, statement) && succeeded;
  } finally {
    await client.end({ timeout: 1 });
  }
  return terminal || succeeded;
}
