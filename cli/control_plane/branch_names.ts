/**
 * What a branch may be called. Names are typed at shells, shown in lists and compared by eye, so
 * one that cannot be told from another, or that a shell or a terminal takes for something else, is
 * refused. Letters may be of any script, but not Latin beside Cyrillic or Greek ones, half of which
 * look the same.
 */
import { BadRequest } from "../../libs/utils/errors.ts";

const LENGTH_MAX = 255;
const NAME = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}._/+@#:=-]*$/u;

/** Throws BadRequest unless a new branch can be called `name`. */
export function checkBranchName(name: string): void {
  const refuse = (why: string) => {
    throw new BadRequest(`Cannot name a branch "${name}": ${why}`);
  };
  if (name.length > LENGTH_MAX) refuse(`use up to ${LENGTH_MAX} characters`);
  if (!NAME.test(name)) refuse('use letters, digits and "._/+@#:=-", first a letter or digit');
  if (name.split("/").some((part) => part === "" || part === "." || part === "..")) {
    refuse('nothing, "." or ".." between slashes could be meant as a path');
  }
  if (name !== name.normalize("NFKC")) {
    refuse(`it looks like "${name.normalize("NFKC")}" and is not the same`);
  }
  if (/\p{Script=Latin}/u.test(name) && /[\p{Script=Cyrillic}\p{Script=Greek}]/u.test(name)) {
    refuse("it mixes Latin letters with others that look like them");
  }
}
