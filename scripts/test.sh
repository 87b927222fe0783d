#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Sets up what is missing, builds, and runs every test. The first that fails ends it.
#
#   scripts/test.sh [--quick|--full]     --quick: the release build and its unit tests only; needs no Python
#                                        --full: also a small model of each class that a rule describes (ten minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "" | --quick | --full) ;;
  *) echo "usage: scripts/test.sh [--quick|--full]" >&2; exit 2 ;;
esac

step() { printf '\n==== %s\n' "$*"; }

# run_ctest PRESET [ctest's options...]
run_ctest() {
  local preset=$1
  shift
  "${fixed_addresses[@]}" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" "$@"
}

# The thread sanitizer of clang 14 cannot start where the kernel spreads addresses widely. Where it may not be told to
# stop that (some containers), it is tried as it is.
fixed_addresses=()
setarch "$(uname -m)" -R true 2>/dev/null && fixed_addresses=(setarch "$(uname -m)" -R)

step "setup"
if [[ ${1:-} == --quick ]]; then scripts/setup.sh --no-python; else scripts/setup.sh; fi

step "unit tests"
scripts/build.sh release
run_ctest release
[[ ${1:-} != --quick ]] || exit 0

step "packages: the wheel and the .deb, each used where there is no compiler and no library of ours"
scripts/wheel.sh
if ((EUID == 0)) && command -v debootstrap >/dev/null; then scripts/test_deb.sh; else echo "skipped: the .deb, which needs root and debootstrap"; fi

step "unit tests and fuzzers with the address and undefined behaviour sanitizers"
scripts/build.sh asan unit_tests fuzzers
run_ctest asan -L 'unit|fuzz'

step "the scheduler's tests with the thread sanitizer"
scripts/build.sh tsan scheduler_tests
run_ctest tsan -L scheduler

step "license lines"
python3 scripts/spdx.py

step "interoperation with DeepSpeed, transformers, safetensors and torch"
# Most of the time is Python starting up, so two at once; a file's tests share what they make, so files stay whole.
.venv/bin/python -m pytest tests/interop -q -n 2 --dist loadfile

[[ ${1:-} == --full ]] || exit 0
step "every class: causal language models, and those of images and text"
.venv/bin/python tests/interop/all_classes.py build/release/bin/crossdock
