/**
 * A start that PostgreSQL refused because of a setting, said in one line: which one, and which was
 * probably meant. The names come from PostgreSQL itself (`postgres --describe-config`).
 *
 *   LOG:  unrecognized configuration parameter "shared_bufers" in file "..." line 8
 *   LOG:  invalid value for parameter "work_mem": "lots"
 *   FATAL:  -17 is outside the valid range for parameter "max_wal_senders" (0 .. 262143)
 *                          (PostgreSQL 17, utils/misc/guc.c and guc-file.l)
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { join } from "../../libs/utils/paths.ts";
import { didYouMean } from "./suggest.ts";

const UNKNOWN = /unrecognized configuration parameter "([^"]+)"/;
const INVALID = /invalid value for parameter "[^"]+": "[^"]*"/;
const OUT_OF_RANGE = /\S+( \w+)? is outside the valid range for parameter "[^"]+" \([^)]*\)/;

/** What to throw in place of `error`: itself, unless PostgreSQL refused a setting. */
export function withSettingNamed(error: Error, endpoint: string, binDir: string): Error {
  const unknown = UNKNOWN.exec(error.message)?.[1];
  const refused = unknown === undefined
    ? INVALID.exec(error.message)?.[0] ?? OUT_OF_RANGE.exec(error.message)?.[0]
    : `there is no setting "${unknown}"${didYouMean(unknown, settingNames(binDir))}`;
  if (refused === undefined) return error;
  return new BadRequest(`Cannot start endpoint "${endpoint}": PostgreSQL says ${refused}`);
}

/** Settings that a postgresql.conf may have. */
function settingNames(binDir: string): string[] {
  try {
    const { stdout } = new Deno.Command(join(binDir, "postgres"), {
      args: ["--describe-config"],
      stderr: "null",
    }).outputSync();
    return new TextDecoder().decode(stdout).split("\n").map((line) => line.split("\t")[0]!)
      .filter((name) => name !== "");
  } catch {
    return []; // then there is no suggestion
  }
}
