/**
 * Which logical slots the storage has, or is being told of, in the file `slots` of an endpoint's
 * directory: sealed JSON, a list of names. A host that adopts a running Postgres learns from it
 * which slots were dropped meanwhile; without that they would be there again after the next start.
 */
import { ifThere } from "../../libs/utils/if_there.ts";
import {
  readSealedFile,
  type SealedFormat,
  writeSealedFile,
} from "../../libs/utils/sealed_file.ts";

const FORMAT: SealedFormat = { magic: "NCSL", version: 1, what: "list of slots" };

/** Writes the file durably, unless it says that already. */
export function writeSlotNames(path: string, names: readonly string[]): void {
  const sorted = [...names].sort();
  if (JSON.stringify(readSlotNames(path)) === JSON.stringify(sorted)) return;
  writeSealedFile(path, FORMAT, new TextEncoder().encode(JSON.stringify(sorted)));
}

/** Reads it; none if there is no file. Throws Corrupt. */
export function readSlotNames(path: string): string[] {
  const file = ifThere(() => readSealedFile(path, FORMAT));
  if (file === undefined) return [];
  return JSON.parse(new TextDecoder().decode(file.body)) as string[];
}
