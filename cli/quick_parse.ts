/**
 * Reads a command line that is plainly right, as commander would (command.ts). Whatever is not
 * plain is left to commander: help, unknown and missing words, wrong values, options in front of a
 * subcommand, values that look like options. Pure but for the parsers of values.
 */
import { type Definition, InvalidArgumentError } from "./command.ts";

type Parse = (text: string, before: unknown) => unknown;

/** An option or an argument of a command. */
interface Place {
  /** "--branch-name" and perhaps "-b"; none of an argument. */
  readonly spellings: readonly string[];
  readonly attribute: string;
  readonly takesValue: boolean;
  isRequired: boolean;
  parse?: Parse;
  initial?: unknown;
  /** Attributes of the options that may not stand beside this one. */
  conflicts: readonly string[];
}

/** Something is not plain. */
class NotPlain extends Error {}

function plain<T>(value: T | undefined): T {
  if (value === undefined) throw new NotPlain();
  return value;
}

function optionOf(flags: unknown, isRequired: boolean): Place {
  const found = /^(?:(-[A-Za-z]), )?(--(?!no-)[a-z]+(?:-[a-z]+)*)( <[^<>.]+>)?$/.exec(`${flags}`);
  const [, short, long, value] = plain(found ?? undefined);
  return {
    spellings: short === undefined ? [long!] : [long!, short],
    attribute: long!.slice(2).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    takesValue: value !== undefined,
    isRequired,
    conflicts: [],
  };
}

function argumentOf(name: unknown): Place {
  const [, required] = plain(/^(?:<([^<>.]+)>|\[[^[\].]+\])$/.exec(`${name}`) ?? undefined);
  const isRequired = required !== undefined;
  return { spellings: [], attribute: "", takesValue: true, isRequired, conflicts: [] };
}

/** With what `option(flags, description, parse, initial)` has behind the description. */
function withValue(place: Place, [third, fourth]: readonly unknown[]): Place {
  if (typeof third !== "function") return { ...place, initial: third };
  return { ...place, parse: third as Parse, initial: fourth };
}

/** An Option or an Argument that was told more. */
function withCalls(place: Place, { calls }: Definition): Place {
  for (const [method, [first]] of calls) {
    if (method === "argParser") place.parse = first as Parse;
    else if (method === "default") place.initial = first;
    else if (method === "conflicts") place.conflicts = [first].flat() as string[];
    else if (method === "choices") {
      const choices = first as readonly string[];
      place.parse = (text) => plain(choices.find((choice) => choice === text));
    } else throw new NotPlain();
  }
  return place;
}

/** What a command takes. */
interface Form {
  readonly options: readonly Place[];
  readonly arguments: readonly Place[];
  readonly subcommands: readonly Definition[];
  readonly action: ((...args: unknown[]) => unknown) | undefined;
}

function formOf({ calls }: Definition): Form {
  const options: Place[] = [];
  const places: Place[] = [];
  const subcommands: Definition[] = [];
  let action: Form["action"];
  for (const [method, args] of calls) {
    const [first, , ...rest] = args;
    if (method === "option" || method === "requiredOption") {
      options.push(withValue(optionOf(first, method === "requiredOption"), rest));
    } else if (method === "addOption") {
      options.push(withCalls(optionOf((first as Definition).made[0], false), first as Definition));
    } else if (method === "argument") places.push(withValue(argumentOf(first), rest));
    else if (method === "addArgument") {
      places.push(withCalls(argumentOf((first as Definition).made[0]), first as Definition));
    } else if (method === "addCommand") subcommands.push(first as Definition);
    else if (method === "action") action = first as Form["action"];
    else if (!["description", "summary", "addHelpText"].includes(method)) throw new NotPlain();
  }
  return { options, arguments: places, subcommands, action };
}

/** The words of a command line behind the command that `definition` is. */
function read(definition: Definition, words: readonly string[]): () => unknown {
  const form = formOf(definition);
  if (form.subcommands.length > 0) {
    const sub = form.subcommands.find(({ made }) => made[0] === words[0]);
    return read(plain(sub), words.slice(1));
  }
  const action = plain(form.action);
  const operands: string[] = [];
  const given = new Set<string>();
  const values: Record<string, unknown> = {};
  for (const { attribute, initial } of form.options) {
    if (initial !== undefined) values[attribute] = initial;
  }
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith("-")) {
      operands.push(word);
      continue;
    }
    const [, long = word, equals] = /^(--[^=]+)(=?)/.exec(word) ?? [];
    const option = plain(form.options.find(({ spellings }) => spellings.includes(long)));
    const { attribute, parse = (text: string) => text } = option;
    const isJoined = equals === "=";
    if (isJoined && !option.takesValue) throw new NotPlain();
    given.add(attribute);
    if (!option.takesValue) values[attribute] = true;
    else {
      const text = isJoined ? word.slice(long.length + 1) : plain(words[++i]);
      if (!isJoined && text.startsWith("-")) throw new NotPlain();
      values[attribute] = parse(text, values[attribute]);
    }
  }
  for (const { attribute, isRequired, conflicts } of form.options) {
    const isGiven = given.has(attribute);
    if (isRequired && values[attribute] === undefined) throw new NotPlain();
    if (isGiven && conflicts.some((other) => given.has(other))) throw new NotPlain();
  }
  if (operands.length > form.arguments.length) throw new NotPlain();
  const args = form.arguments.map(({ isRequired, parse = (text) => text, initial }, i) => {
    const text = operands[i];
    if (text !== undefined) return parse(text, initial);
    return isRequired ? plain(initial) : initial;
  });
  return () => action(...args, values);
}

/**
 * What runs the command of this command line, `words` behind its name; undefined if that is for
 * commander to say.
 */
export function quickParse(
  definition: Definition,
  words: readonly string[],
): (() => unknown) | undefined {
  try {
    return read(definition, words);
  } catch (thrown) {
    if (thrown instanceof NotPlain || thrown instanceof InvalidArgumentError) return undefined;
    throw thrown;
  }
}
