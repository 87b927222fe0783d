#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Runs clang-tidy (.clang-tidy) over sources, and prints what it finds. Exit code 1: it found something.
#
#   scripts/tidy.sh                   all of apps, core and plugins (TIDY_JOBS at once)
#   scripts/tidy.sh --since COMMIT    those that changed since then
#   scripts/tidy.sh FILE...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tidy=${CLANG_TIDY:-$(command -v clang-tidy || compgen -c clang-tidy- | grep -xE 'clang-tidy-[0-9]+' | sort -V | tail -n 1)}
[[ -n $tidy ]] || { echo "tidy: found no clang-tidy; install the package clang-tidy" >&2; exit 1; }

case "${1:-}" in
  "") mapfile -t files < <(git ls-files 'apps/*.cc' 'core/*.cc' 'plugins/*.cc' | grep -v '_test\.cc$') ;;
  --since)
    # The first push of a branch has no commit before it.
    base=$(git rev-parse --quiet --verify "${2:-}^{commit}" || git rev-parse HEAD^)
    mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'apps/*.cc' 'core/*.cc' 'plugins/*.cc' | grep -v '_test\.cc$')
    ;;
  -*) echo "usage: scripts/tidy.sh [--since COMMIT|FILE...]" >&2; exit 2 ;;
  *) files=("$@") ;;
esac
((${#files[@]})) || { echo "tidy: nothing to look at"; exit 0; }

# Headers that protoc makes must be there. A precompiled header of g++ is none for clang, so it is left out of the commands.
scripts/build.sh release crossdock_core
mkdir -p build/tidy
python3 - <<'PYTHON'
import json
import re
commands = json.load(open("build/release/compile_commands.json"))
for one in commands:
    one["command"] = re.sub(r"-include \S*cmake_pch\.hxx|-Winvalid-pch", "", one["command"])
json.dump(list({one["file"]: one for one in commands}.values()), open("build/tidy/compile_commands.json", "w"))
PYTHON

status=0
printf '%s\n' "${files[@]}" |
  xargs -P "${TIDY_JOBS:-$(nproc)}" -n 1 "$tidy" -p build/tidy --quiet --warnings-as-errors='*' 2> >(grep -v 'warnings* generated' >&2) || status=1
exit "$status"
