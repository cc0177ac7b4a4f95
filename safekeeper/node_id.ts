/**
 * Whose directory it is: `safekeeper.id` holds the id of the safekeeper that first used it, as
 * text. Votes and acknowledged WAL are promises of one safekeeper: another one that starts on the
 * directory, or on a copy of it, would count twice in a quorum.
 */
import { join } from "node:path";
import { replaceFile } from "../libs/utils/durable.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";

/** Throws Corrupt if the directory is another safekeeper's; a new one becomes this one's. */
export function claimDirectory(directory: string, id: number): void {
  const path = join(directory, "safekeeper.id");
  const text = ifThere(() => Deno.readTextFileSync(path));
  if (text === undefined) replaceFile(path, new TextEncoder().encode(`${id}\n`));
  else if (text.trim() !== String(id)) {
    throw new Corrupt(
      `Cannot use "${directory}" for safekeeper ${id}: "${path}" says that it is ` +
        `"${text.trim().slice(0, 20)}"; give each safekeeper its own directory back`,
    );
  }
}
