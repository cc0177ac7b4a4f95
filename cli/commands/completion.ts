/** `neon completion bash|zsh|fish`: prints the script that makes a shell complete `neon`. */
import { Argument, Command } from "../command.ts";
import { COMPLETION_SCRIPTS } from "../completion_scripts.ts";
import { withExamples } from "../help.ts";
import { printLine } from "../output.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

/** The command. */
export function command(): Command {
  const made = new Command("completion")
    .description("print the script with which a shell completes commands, options and names")
    .addArgument(new Argument("<shell>", "which shell").choices(SHELLS))
    .action((shell) => printLine(COMPLETION_SCRIPTS[shell].trimEnd()));
  return withExamples(
    made as unknown as Command,
    ["source <(neon completion bash)", "in ~/.bashrc; for zsh in ~/.zshrc"],
    ["neon completion fish > ~/.config/fish/completions/neon.fish"],
  );
}
