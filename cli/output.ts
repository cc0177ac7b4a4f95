/**
 * What commands print: results on standard output, everything else on standard error.
 *
 * A table is borderless, as Neon prints it: one leading space, columns two spaces apart. With
 * --json the same rows come as one JSON value. On a terminal there is one passing line, which the
 * next one, or anything else that is printed, overwrites.
 */

const encoder = new TextEncoder();

type Stream = { writeSync(bytes: Uint8Array): number };

function writeAll(stream: Stream, text: string): void {
  writeBytes(stream, encoder.encode(text));
}

function writeBytes(stream: Stream, bytes: Uint8Array): void {
  try {
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  } catch (thrown) {
    if (thrown instanceof Deno.errors.BrokenPipe) Deno.exit(0); // `neon ... | head`
    throw thrown;
  }
}

/** Columns of the terminal; one that does not say has as many as ever. */
function terminalColumns(): number {
  return Deno.consoleSize().columns || 80;
}

/** Whether the terminal shows a line that is to be overwritten. */
let isPassingShown = false;

/** Shows a line on the terminal until something else is printed; elsewhere it is not shown. */
export function showPassing(line: string): void {
  if (!Deno.stderr.isTerminal()) return;
  // A line that wraps could not be overwritten
  writeAll(Deno.stderr, `\r\x1b[K${cut(line, terminalColumns() - 1)}`);
  isPassingShown = true;
}

/** Takes the passing line away. */
export function endPassing(): void {
  if (isPassingShown) writeAll(Deno.stderr, "\r\x1b[K");
  isPassingShown = false;
}

/** Prints one line of a result. */
export function printLine(line: string): void {
  endPassing();
  writeAll(Deno.stdout, `${line}\n`);
}

/** Prints bytes of a result as they are. */
export function printBytes(bytes: Uint8Array): void {
  endPassing();
  writeBytes(Deno.stdout, bytes);
}

/** Prints a value as JSON. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value, null, 2));
}

/** Prints a line for the person at the terminal, not for a script. */
export function printHint(line: string): void {
  endPassing();
  writeAll(Deno.stderr, `${line}\n`);
}

/** Characters that take two columns: East Asian scripts, fullwidth forms, emoji. */
const WIDE = /[\u1100-\u115F\u2E80-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE4F\uFF00-\uFF60]/;
const WIDE_EMOJI = /\p{Emoji_Presentation}/u;

/** How many terminal columns a text takes: wide characters take two, combining marks none. */
export function displayWidth(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length;
  let width = 0;
  for (const character of text) {
    if (/\p{Mark}/u.test(character)) continue;
    width += WIDE.test(character) || WIDE_EMOJI.test(character) ? 2 : 1;
  }
  return width;
}

/** Lines of a borderless table: the header, then the rows. */
export function tableLines(header: string[], rows: string[][]): string[] {
  const widths = header.map((title, i) =>
    Math.max(displayWidth(title), ...rows.map((row) => displayWidth(row[i] ?? "")))
  );
  return [header, ...rows].map((row) =>
    (" " + row.map((cell, i) => cell + " ".repeat(widths[i]! - displayWidth(cell))).join("  "))
      .trimEnd()
  );
}

/** A text of at most `width` columns; what is cut off leaves "…". */
export function cut(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = "";
  let taken = 1;
  for (const character of text) {
    taken += displayWidth(character);
    if (taken > width) break;
    kept += character;
  }
  return `${kept}…`;
}

/** Columns that a cell keeps when its table is made to fit. */
const CELL_WIDTH_MIN = 8;

/** A table of at most `width` columns if cutting cells of the `flexible` ones is enough. */
export function fittedTable(
  header: string[],
  rows: string[][],
  flexible: number[],
  width: number,
): string[] {
  const limits = header.map((title, i) =>
    Math.max(displayWidth(title), ...rows.map((row) => displayWidth(row[i] ?? "")))
  );
  const total = () => limits.reduce((sum, limit) => sum + limit, 0) + 2 * header.length - 1;
  while (total() > width) {
    const widest = flexible.reduce((a, b) => limits[b]! > limits[a]! ? b : a);
    if (limits[widest]! <= CELL_WIDTH_MIN) break;
    limits[widest]!--;
  }
  return tableLines(header, rows.map((row) => row.map((cell, i) => cut(cell, limits[i]!))));
}

/** Columns of the terminal that results go to; Infinity if they go elsewhere. */
export function outputWidth(): number {
  return Deno.stdout.isTerminal() ? terminalColumns() : Infinity;
}

/** Prints a borderless table. */
export function printTable(header: string[], rows: string[][]): void {
  for (const line of tableLines(header, rows)) printLine(line);
}

/** Longest part of the command line that a message repeats. */
const REPEATED_MAX = 100;
/** What a terminal would obey or hide instead of showing: control and format characters. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

function visible(text: string): string {
  const escape = (character: string) =>
    `\\u${character.codePointAt(0)!.toString(16).padStart(4, "0")}`;
  return text.replaceAll("\n", "\\n").replaceAll(UNSEEN, escape);
}

/**
 * A message that repeats words of the command line, as it can be shown: what is unseen in them
 * stands as \uXXXX, and of an endless one only the beginning is there.
 */
export function readable(message: string, args: readonly string[]): string {
  let text = message;
  for (const word of [...args].sort((a, b) => b.length - a.length)) {
    const shown = visible(word.length > REPEATED_MAX ? `${word.slice(0, REPEATED_MAX)}...` : word);
    if (shown !== word) text = text.replaceAll(word, () => shown);
  }
  return text.replaceAll(UNSEEN, (character) => character === "\n" ? "\n" : visible(character));
}
