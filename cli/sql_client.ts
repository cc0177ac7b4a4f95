/**
 * A small SQL client for machines without psql: runs statements and prints what comes back the way
 * psql does. At a prompt, a statement ends with ";"; \q leaves.
 *
 *      id | name
 *     ----+------
 *       1 | one
 *     (1 row)
 */
import { PgClient } from "../libs/pgwire/client.ts";
import type { Column, ServerReport } from "../libs/pgwire/messages.ts";
import { displayWidth, printBytes, printHint, printLine } from "./output.ts";

/** Which server, user and database. */
interface SqlTarget {
  host: string;
  port: number;
  user: string;
  database: string;
}

/** One result with columns, values as the server prints them. */
interface TextResult {
  columns: readonly Column[];
  rows: (readonly (string | null)[])[];
}

/** Type oids of numbers, aligned to the right (pg_type.dat: int8, int2, int4, oid, ...). */
const NUMBER_TYPES = new Set([20, 21, 23, 26, 700, 701, 790, 1700]);

/** What changes rows says so even when it returns some. */
const CHANGES = /^(INSERT|UPDATE|DELETE|MERGE)/;

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
    cells.reduce((width, row) => Math.max(width, displayWidth(row[i]!)), displayWidth(column.name))
  );
  const line = (parts: string[]) => ` ${parts.join(" | ")}`.trimEnd();
  return [
    line(columns.map((column, i) => centre(column.name, widths[i]!))),
    widths.map((width) => "-".repeat(width + 2)).join("+"),
    ...cells.map((row) =>
      line(row.map((text, i) => pad(text, widths[i]!, NUMBER_TYPES.has(columns[i]!.typeOid))))
    ),
    `(${rows.length} row${rows.length === 1 ? "" : "s"})`,
    "",
  ];
}

function connect({ host, port, user, database }: SqlTarget): Promise<PgClient> {
  const parameters = { user, database, client_encoding: "UTF8", application_name: "neon sql" };
  return PgClient.connect({ hostname: host, port }, parameters);
}

function printReport({ severity, message, detail, hint }: ServerReport): void {
  printHint(`${severity}:  ${message}`);
  if (detail !== undefined) printHint(`DETAIL:  ${detail}`);
  if (hint !== undefined) printHint(`HINT:  ${hint}`);
}

/** Runs one text of statements and prints what they give; false if one failed. */
async function runOne(client: PgClient, sql: string): Promise<boolean> {
  let result: TextResult | undefined;
  let hasCopied = false;
  let succeeded = true;
  for await (const answer of client.answers(sql)) {
    switch (answer.kind) {
      case "columns":
        result = { columns: answer.columns, rows: [] };
        break;
      case "row":
        result!.rows.push(answer.values);
        break;
      case "copied":
        printBytes(answer.bytes);
        hasCopied = true;
        break;
      case "done":
        for (const line of result === undefined ? [] : resultLines(result)) printLine(line);
        if (!hasCopied && (result === undefined || CHANGES.test(answer.tag))) {
          printLine(answer.tag);
        }
        result = undefined;
        hasCopied = false;
        break;
      case "notice":
        printReport(answer.report);
        break;
      case "error":
        printReport(answer.report);
        result = undefined;
        succeeded = false;
    }
  }
  return succeeded;
}

/** Runs each text in order; false if one failed. Those after it run all the same, as in psql. */
export async function runCommands(target: SqlTarget, commands: string[]): Promise<boolean> {
  const client = await connect(target);
  let succeeded = true;
  try {
    for (const sql of commands) succeeded = await runOne(client, sql) && succeeded;
  } finally {
    client.close();
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
  const client = await connect(target);
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
      if (statement === "" && line.trim().startsWith("\\")) {
        printHint(`Cannot run "${line.trim()}": that is for psql; here there is only "\\q"`);
        succeeded = false;
        prompt();
        continue;
      }
      statement += `${line}\n`;
      if (/;\s*$/.test(statement)) {
        succeeded = await runOne(client, statement) && succeeded;
        statement = "";
      } else if (statement.trim() === "") statement = "";
      prompt();
    }
    if (statement.trim() !== "") succeeded = await runOne(client, statement) && succeeded;
  } finally {
    client.close();
  }
  return terminal || succeeded;
}
