/**
 * What the commands are made with: commander's Command, Option and Argument, as far as they are
 * used, which only note what they are told. A command line that is right is run by these notes
 * alone (quick_parse.ts); for help, and for whatever is wrong, commander is loaded and told the
 * same (program.ts). Loading it takes as long as everything else that a command loads.
 */
import type * as commander from "@commander-js/extra-typings";

/** A call of a method of commander's. */
type Call = readonly [method: string, args: readonly unknown[]];

const METHODS = [
  ...["action", "addArgument", "addCommand", "addHelpText", "addOption", "argParser", "argument"],
  ...["choices", "conflicts", "default", "description", "option", "requiredOption", "summary"],
];

/** See the head of the file. */
export class Definition {
  readonly kind: "Command" | "Option" | "Argument";
  /** Arguments of the constructor. */
  readonly made: readonly unknown[];
  /** What it was told since. */
  readonly calls: Call[] = [];

  constructor(kind: Definition["kind"], made: readonly unknown[]) {
    this.kind = kind;
    this.made = made;
  }
}

for (const method of METHODS) {
  Object.defineProperty(Definition.prototype, method, {
    value(this: Definition, ...args: unknown[]) {
      this.calls.push([method, args]);
      return this;
    },
  });
}

function definitionOf(kind: Definition["kind"]): unknown {
  return class extends Definition {
    constructor(...made: unknown[]) {
      super(kind, made);
    }
  };
}

/** Any command, whatever its options are. */
export type Command = commander.Command;

export const Command = definitionOf("Command") as typeof commander.Command;
export const Option = definitionOf("Option") as typeof commander.Option;
export const Argument = definitionOf("Argument") as typeof commander.Argument;

/** Commander's own object for a definition. */
export function builtBy(library: typeof commander, { kind, made, calls }: Definition): unknown {
  const construct = library[kind] as unknown as new (...args: readonly unknown[]) => unknown;
  const built = new construct(...made) as Record<string, (...args: unknown[]) => unknown>;
  for (const [method, args] of calls) {
    built[method]!(...args.map((arg) => arg instanceof Definition ? builtBy(library, arg) : arg));
  }
  return built;
}

/** A value on the command line is wrong usage (exit 2); commander knows it by its code. */
export class InvalidArgumentError extends Error {
  readonly code = "commander.invalidArgument";
  readonly exitCode = 1;
}
