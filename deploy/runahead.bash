# bash completion of runahead: the commands and flags that its own help names, so that it never lags behind.
_runahead() {
  local binary=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} words=
  if ((COMP_CWORD == 1)); then
    words=$("$binary" --help 2>/dev/null | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
  elif [[ $word == -* ]]; then
    words=$("$binary" "${COMP_WORDS[1]}" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*')
  else
    compopt -o default
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _runahead runahead
