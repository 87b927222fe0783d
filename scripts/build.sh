#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds one preset: release (default), dev, asan or tsan. The command is then build/PRESET/bin/crossdock.
#
#   scripts/build.sh [PRESET [TARGET...]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-release}
command -v cmake >/dev/null || { echo "build: found no cmake; run scripts/setup.sh --no-python first" >&2; exit 1; }
# So that another clone of the same files finds the same objects in the cache.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros  # what ccache asks for with precompiled headers
cmake --preset "$preset"
if (($# > 1)); then cmake --build --preset "$preset" --target "${@:2}"; else cmake --build --preset "$preset"; fi
