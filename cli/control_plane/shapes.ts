/** Shapes that the files of the control plane have in common (libs/utils/shape.ts). */
import { Corrupt } from "../../libs/utils/errors.ts";
import { problemIn, type Shape, table, text, whole } from "../../libs/utils/shape.ts";

/** A tenant's or timeline's id. */
export const idShape = text(/^[0-9a-f]{32}$/, "an id of 32 hex digits");

/** A TCP port. */
export const portShape = whole(1, 65535);

/** A PostgreSQL major version that is supported. */
export const versionShape = whole(14, 18);

/** A number that names one of several daemons. */
export const nodeIdShape = whole(1, 2 ** 31);

/** Reads a record that is kept as JSON. Throws Corrupt naming the file and what is wrong in it. */
export function parseRecord<T>(path: string, json: string, shape: Shape<T>): T {
  const refuse = (why: string) =>
    new Corrupt(`Cannot use "${path}": ${why}; mend it, or put a copy of it back`);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw refuse("it is not JSON");
  }
  const problem = problemIn(value, table<T>(shape));
  if (problem !== undefined) throw refuse(problem);
  return value as T;
}
