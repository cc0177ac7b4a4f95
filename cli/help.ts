/**
 * What every command's help has in common: examples below the options, and wrong usage as one line
 * that says what is wrong, what was probably meant and where the help is.
 */
import type { Command, Help } from "@commander-js/extra-typings";
import { closest } from "./control_plane/suggest.ts";
import { readable } from "./output.ts";

/** Any command, whatever its options are. */
type AnyCommand = Command<unknown[], Record<string, unknown>>;

/** An example: the command line, and what it does where that is not plain. */
type Example = readonly [line: string, what?: string];

/** Columns for an example and what it does, side by side. */
const EXAMPLE_COLUMNS = 74;

/** Adds examples to a command's help: what they do stands beside all of them, or above. */
export function withExamples<C>(command: C, ...examples: Example[]): C {
  const explained = examples.filter(([, what]) => what !== undefined);
  const width = Math.max(0, ...explained.map(([line]) => line.length));
  const isBeside = explained.every(([, what]) => width + what!.length <= EXAMPLE_COLUMNS);
  const lines = examples.map(([line, what]) => {
    if (what === undefined) return `  ${line}`;
    return isBeside ? `  ${line.padEnd(width)}  # ${what}` : `  # ${what}\n  ${line}`;
  });
  (command as unknown as AnyCommand).addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
  return command;
}

/** The words that lead to a command: "neon timeline branch". */
export function pathOf(command: AnyCommand): string {
  return command.parent === null
    ? command.name()
    : `${pathOf(command.parent as AnyCommand)} ${command.name()}`;
}

/** Commander's text as one line: `error: X; did you mean Y? ("neon ... --help" shows how)`. */
function usageLine(command: AnyCommand, args: readonly string[], text: string): string {
  let [what, ...hints] = readable(text, args).trim().split("\n") as [string, ...string[]];
  let meant = /^\(Did you mean (?:one of )?(.*?)\?\)$/.exec(hints.join(" "))?.[1];
  const options = command.options.flatMap(({ long }) => long ?? []);
  const given = args.filter((arg) => /^--[a-z]/.test(arg)).map((arg) => arg.split("=")[0]!);
  const unknown = given.find((option) => ![...options, "--help"].includes(option));
  // A mandatory option that is missing is often there, mistyped
  if (/required option/.test(what) && unknown !== undefined) {
    what = `error: unknown option '${unknown}'`;
    meant = closest(unknown, options);
  }
  const suggestion = meant === undefined ? "" : `; did you mean ${meant}?`;
  return `${what.replace(/\.$/, "")}${suggestion} ("${pathOf(command)} --help" shows how)\n`;
}

/** Gives a command and all below it our help and our one-line errors; they throw, not exit. */
export function present(command: AnyCommand, args: readonly string[]): void {
  command
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(usageLine(command, args, text)),
    })
    .configureHelp({ sortSubcommands: false, subcommandTerm, subcommandDescription })
    .helpOption("-h, --help", "show this help")
    .helpCommand(false);
  // The program's own "help X Y" is turned into "X Y --help" before it comes here
  if (command.parent !== null && command.commands.length > 0) {
    command.helpCommand("help [command]", "show the help of a command");
  }
  for (const sub of command.commands) present(sub as AnyCommand, args);
}

const subcommandTerm: Help["subcommandTerm"] = (command) => {
  const args = command.registeredArguments
    .map((argument) => argument.required ? `<${argument.name()}>` : `[${argument.name()}]`);
  return [command.name(), ...args].join(" ");
};

/** The first sentence; the command's own help has all of it. */
const subcommandDescription: Help["subcommandDescription"] = (command) =>
  command.summary() || command.description();
