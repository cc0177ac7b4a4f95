/**
 * A row of the benchmark's table: one thing that was measured, on stock PostgreSQL as shipped, on
 * stock PostgreSQL without full page images, and on ours, round by round.
 */
import { figure, figures, markdownTable, summarise } from "../report.ts";

/** The servers that are compared. */
export type SideName = "stock" | "stock, no page images" | "ours";

/** One value of each side in each round, in the order of the rounds. */
export interface Row {
  readonly what: string;
  readonly unit: "tps" | "ms" | "us" | "s" | "MB";
  readonly values: { readonly [side in SideName]?: readonly number[] };
  /** Behind the value of a side: percentiles, client CPU. */
  readonly notes?: { readonly [side in SideName]?: string };
  /** What the ratio, or without a stock side the value of ours, should reach. */
  readonly aim?: string;
}

/** Rows that were measured together, under one heading. */
export interface Group {
  readonly title: string;
  readonly rows: readonly Row[];
}

/** How much better ours is than `stock` in each round: above 1 is better, whatever the unit. */
export function ratios(row: Row, stock: SideName = "stock"): number[] {
  const theirs = row.values[stock];
  const ours = row.values.ours;
  if (theirs === undefined || ours === undefined) return [];
  return ours.map((value, round) =>
    row.unit === "tps" ? value / theirs[round]! : theirs[round]! / value
  );
}

function cell(row: Row, side: SideName): string {
  const values = row.values[side];
  if (values === undefined || values.length === 0) return "";
  const note = row.notes?.[side];
  return `${figures(summarise(values))} ${row.unit}${note === undefined ? "" : `; ${note}`}`;
}

function ratioCell(row: Row, side: SideName): string {
  const values = ratios(row, side);
  return values.length === 0 ? "" : figure(summarise(values).median);
}

/** The group as a table in Markdown, with its heading. */
export function groupTable({ title, rows }: Group): string {
  const withImages = rows.some((row) => row.values["stock, no page images"] !== undefined);
  const withStock = rows.some((row) => row.values.stock !== undefined);
  const head = [
    "",
    ...(withStock ? ["stock PostgreSQL"] : []),
    ...(withImages ? ["stock, full_page_writes=off"] : []),
    "ours",
    ...(withStock ? ["ratio"] : []),
    ...(withImages ? ["ratio to full_page_writes=off"] : []),
    "aim",
  ];
  const body = rows.map((row) => [
    row.what,
    ...(withStock ? [cell(row, "stock")] : []),
    ...(withImages ? [cell(row, "stock, no page images")] : []),
    cell(row, "ours"),
    ...(withStock ? [ratioCell(row, "stock")] : []),
    ...(withImages ? [ratioCell(row, "stock, no page images")] : []),
    row.aim ?? "",
  ]);
  return `**${title}**\n\n${markdownTable(head, body)}`;
}
