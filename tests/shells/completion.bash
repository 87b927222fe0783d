# bash completion.bash SCRIPT COMMAND: what bash completes, as readline would ask for it.
set -u
shopt -s expand_aliases
crossdock() { "$command" "$@"; }  # the script calls the word that was typed
command=$2
. "$1"
expect() {  # expect CANDIDATES WORD...: after these words, the last of which is being written
  local expected=$1
  shift
  COMP_WORDS=(crossdock "$@") COMP_CWORD=$#
  COMPREPLY=()
  _crossdock
  if [[ "${COMPREPLY[*]-}" != "$expected" ]]; then
    echo "crossdock $*: expected <$expected>, found <${COMPREPLY[*]-}>"
    exit 1
  fi
}
expect "convert inspect verify diff commit clean plugins completion" ""
expect "convert" con
expect "dcp safetensors universal zero3" convert a b --to ""
expect "universal" convert a b --to u
expect "universal" convert a b --to = u
expect "safetensors" convert a b --from sa
expect "--world-size" convert a b --to zero3 --world
expect "" convert a b --to universal --world
expect "bf16 fp16 fp32" convert a b --to zero3 --dtype ""
expect "auto bar plain json none" verify a --progress ""
expect "org.crossdock.writer.zero3" plugins org.crossdock.writer.z
expect "bash zsh fish" completion ""
