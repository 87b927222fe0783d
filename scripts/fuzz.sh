#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Runs the fuzzers for a time that they share evenly, one after another with a process for each processor, and prints what
# they did. They go on from what earlier runs kept in build/asan/corpus.
#
#   scripts/fuzz.sh MINUTES [NAME...]     NAME: safetensors, gguf, ... (tests/fuzz/README.md); without one: all
#
# Exit code 1: one found something. The input is then in build/asan/finds; mend what it broke, and keep it in
# tests/fuzz/found/NAME. `nice` and FUZZ_JOBS (processes at once) are for machines that others use too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { echo "usage: scripts/fuzz.sh MINUTES [NAME...]" >&2; exit 2; }
(($# >= 1)) && [[ $1 =~ ^[1-9][0-9]*$ ]] || usage
minutes=$1
shift
mapfile -t all < <(sed -n 's/^fuzzer(\([a-z_]*\) .*/\1/p' tests/fuzz/CMakeLists.txt)
(($#)) || set -- "${all[@]}"
for name; do
  [[ " ${all[*]} " == *" $name "* ]] || { echo "fuzz: expected one of ${all[*]}, found $name" >&2; exit 2; }
done

scripts/build.sh asan fuzz_seeds "${@/#/fuzz_}"
jobs=${FUZZ_JOBS:-$(nproc)}
seconds=$((minutes * 60 / $#))
((seconds > 0)) || seconds=1
build=$PWD/build/asan
found=$PWD/tests/fuzz/found
mkdir -p "$build/finds"

table=$(printf '%-14s %14s %9s %6s' fuzzer executions seconds finds)
failed=0
for name; do
  "$build/tests/fuzz_seeds" "$name" "$build/corpus/$name"
  logs=$(mktemp -d)
  before=$(find "$build/finds" -name "$name-*" | wc -l)
  begin=$SECONDS
  # Each process of these writes a log, where it began, and ends with its first find. What the processes wrote into the
  # corpus is read by the others.
  status=0
  (cd "$logs" && "$build/tests/fuzz_$name" -jobs="$jobs" -workers="$jobs" -max_total_time="$seconds" -max_len=8192 \
    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$build/finds/$name-" \
    "$build/corpus/$name" "$found/$name") >"$logs/all.txt" 2>&1 || status=$?
  finds=$(($(find "$build/finds" -name "$name-*" | wc -l) - before))
  executions=$(cat "$logs"/fuzz-*.log | awk '$1 == "stat::number_of_executed_units:" {sum += $2} END {print sum + 0}')
  if ((status != 0 || finds != 0)); then
    failed=1
    grep -ahE 'ERROR|SUMMARY|Test unit written' "$logs"/fuzz-*.log >&2 || tail -n 20 "$logs/all.txt" >&2
  fi
  table+=$'\n'$(printf '%-14s %14s %9s %6s' "$name" "$executions" $((SECONDS - begin)) "$finds")
  rm -r "$logs"
done
printf '\n%s\n' "$table"
exit $failed
