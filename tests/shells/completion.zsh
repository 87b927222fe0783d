# zsh -f completion.zsh SCRIPT COMMAND: what zsh would be given to complete; its own functions are replaced.
command=$2
crossdock() { $command "$@" }
compdef() { }
_files() { found+=(":files $*") }
_describe() { found+=("${(@P)2}") }
source $1
expect() {  # expect CANDIDATES WORD...
  local expected=$1
  shift
  words=(crossdock "$@") CURRENT=$(( $# + 1 )) found=()
  _crossdock
  if [[ "$found" != "$expected" ]]; then
    print "crossdock $*: expected <$expected>, found <$found>"
    exit 1
  fi
}
expect "diff:how two checkpoints differ, of any two formats" di
expect "--to=universal:DeepSpeed Universal checkpoint, for ZeRO stages 1, 2 and 3" convert a b --to=u
expect ":files -/" convert a b --config ""
expect ":files " inspect ""
