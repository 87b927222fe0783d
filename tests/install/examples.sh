#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Installs a build into an empty folder, builds every example plugin against that alone, with each compiler that is there,
# and sends a model through all of them with the installed command.
#
#   tests/install/examples.sh [BUILD]     default: build/release
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(realpath "${1:-$source/build/release}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# must COMMAND...: its output is shown only when it fails.
must() {
  "$@" >log 2>&1 && return
  printf 'examples: %s\n' "$*" >&2
  cat log >&2
  exit 1
}
has() { command -v "$1" >/dev/null; }

# exports_one LIBRARY: the plugin's symbol and no other.
exports_one() {
  local symbols
  symbols=$(nm -D --defined-only "$1" | awk '{print $3}')
  [[ $symbols == xd_plugin_v1 ]] || { echo "examples: expected $1 to export xd_plugin_v1 alone, found $symbols" >&2; exit 1; }
}

must cmake --install "$build" --prefix "$work/prefix"
crossdock=$work/prefix/bin/crossdock

examples=(plugin_c plugin_cpp)
if echo '#include <zlib.h>' | ${CC:-cc} -E - >/dev/null 2>&1; then
  examples+=(npz_reader npz_writer_c99)
else
  echo "skipped: the examples of .npz, for there is no zlib.h"
fi

# build_with CC CXX: the examples from copies, so that nothing of the source tree can help.
build_with() {
  local example folder
  for example in "${examples[@]}"; do
    folder=$work/$1/$example
    mkdir -p "$work/$1" "$work/$1/plugins"
    cp -r "$source/examples/$example" "$folder"
    must cmake -S "$folder" -B "$folder/build" -DCMAKE_C_COMPILER="$1" -DCMAKE_CXX_COMPILER="$2" \
      -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
    must cmake --build "$folder/build"
    exports_one "$folder"/build/*.xd.so
    mv "$folder"/build/*.xd.so "$work/$1/plugins"
    echo "built: $example with $1"
  done
}

build_rust() {
  cp -r "$source/examples/rust_writer" "$work/rust"
  rm -rf "$work/rust/target"
  must env -u CARGO_TARGET_DIR cargo build --release --offline --manifest-path "$work/rust/Cargo.toml"
  mkdir "$work/rust/plugins"
  cp "$work/rust/target/release/librust_writer.so" "$work/rust/plugins/rust_writer.xd.so"
  exports_one "$work/rust/plugins/rust_writer.xd.so"
  echo "built: rust_writer with cargo"
}

# A matrix, a scalar, an empty tensor, bytes; large elements first, as the Rust writer sorts them.
zeros=0000000000000000
{
  printf 'xdtoy 1\nd.w F64 1,2\nscale F32 -\nnone I32 0,5\nbytes U8 7\ndata\n'
  printf 'ABCDEFGHABCDEFGHaaaaABCDEFG'
  printf '%s\n' 0000000000000448 0000000000000184 "$zeros" 00000000000001dc
} >in.xdtoy

# through PLUGINS: from C to C99, with C++ to Rust (or the program's own writer), and back to C.
through() {
  local plugins=(--plugin-path "$1") quick=(--no-sync --progress none) last=safetensors out=$work/out
  if [[ -d rust/plugins ]]; then
    plugins+=(--plugin-path rust/plugins)
    last=safetensors-rust
  fi
  rm -rf "$out"
  mkdir "$out"
  must "$crossdock" convert in.xdtoy "$out/npy" --to npy "${plugins[@]}" "${quick[@]}"
  must "$crossdock" convert in.xdtoy "$out/npz" --to npz "${plugins[@]}" "${quick[@]}"
  must "$crossdock" convert "$out/npz" "$out/last" --to "$last" "${plugins[@]}" "${quick[@]}"
  must "$crossdock" convert "$out/last" "$out/toy" --to toy "${plugins[@]}" "${quick[@]}"
  must cmp in.xdtoy "$out/toy/model.xdtoy"
  echo "converted: toy -> npz -> $last -> toy, with the plugins of $1"
}

if has cargo; then build_rust; else echo "skipped: the example in Rust, for there is no cargo"; fi
compilers=0
for pair in "gcc g++" "clang clang++"; do
  read -r c cxx <<<"$pair"
  if ! has "$c" || ! has "$cxx"; then
    echo "skipped: $c, which is not there"
    continue
  fi
  build_with "$c" "$cxx"
  compilers=$((compilers + 1))
  if ((${#examples[@]} == 4)); then through "$c/plugins"; fi
done
((compilers > 0)) || { echo "examples: expected gcc or clang, found neither" >&2; exit 1; }
