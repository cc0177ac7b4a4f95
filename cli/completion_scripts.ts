/**
 * The completion scripts that `neon completion` prints. They only carry words to `neon __complete`
 * and its answer (completion.ts) back, so that they need not change when the commands do.
 */

const BASH = String
  .raw`# Completion of the neon command for bash. For every shell, add to ~/.bashrc:
#   source <(neon completion bash)
_neon() {
  local neon=\${COMP_WORDS[0]} cur=\${COMP_WORDS[COMP_CWORD]} line
  neon=\${neon/#\~\//$HOME/}
  case $cur in = | :) cur= ;; esac
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :files) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur") ;;
      :directories) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$cur") ;;
      *) COMPREPLY+=("\${line%%$'\t'*}") ;;
    esac
  done < <("$neon" __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _neon neon
`;

const ZSH = String.raw`#compdef neon
# Completion of the neon command for zsh. For every shell, add to ~/.zshrc, below compinit:
#   source <(neon completion zsh)
_neon() {
  local line word neon=\${~words[1]}
  local -a found
  while IFS= read -r line; do
    case $line in
      :files) _files; return ;;
      :directories) _files -/; return ;;
    esac
    word=\${line%%$'\t'*}
    if [[ $line == *$'\t'* ]]; then
      found+=("\${word//:/\\:}:\${line#*$'\t'}")
    else
      found+=("\${word//:/\\:}")
    fi
  done < <($neon __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe -o neon found
}
if [[ \${funcstack[1]} == _neon ]]; then _neon "$@"; else compdef _neon neon; fi
`;

const FISH = String.raw`# Completion of the neon command for fish. For every shell:
#   neon completion fish > ~/.config/fish/completions/neon.fish
function __neon_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l neon $before[1]
    set -e before[1]
    for line in ($neon __complete $before "$current" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$current"
            case ':directories'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c neon -f -a '(__neon_complete)'
`;

/** A script for each shell; `\$` only keeps the template from being filled in. */
export const COMPLETION_SCRIPTS = {
  bash: BASH.replaceAll("\\${", "${"),
  zsh: ZSH.replaceAll("\\${", "${"),
  fish: FISH,
};
