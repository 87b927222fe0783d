#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Converts a Hugging Face model to a DeepSpeed Universal checkpoint and shows what came of it. Sets up and builds what is
# missing first. Needs no Python.
#
#   scripts/demo.sh [HF_DIR [OUT_DIR]]
#
# HF_DIR is a folder that save_pretrained wrote, or org/name of the local Hugging Face cache (default: examples/tiny_llama);
# OUT_DIR is the folder to make (default: build/demo-out, which is replaced).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source=${1:-$root/examples/tiny_llama}
out=${2:-$root/build/demo-out}
crossdock=$root/build/release/bin/crossdock

title() { printf '\n==== %s\n\n' "$*"; }
size() { du -shL "$@" | cut -f1; }

"$root/scripts/setup.sh" --no-python
mkdir -p "$root/build"
log=$root/build/demo-build.log
echo "Building crossdock (the log is $log) ..."
"$root/scripts/build.sh" release >"$log" 2>&1 || { tail -n 30 "$log"; exit 1; }

title "The model: crossdock inspect $source"
"$crossdock" inspect "$source"

title "The plan: crossdock convert $source $out --to universal --dry-run"
"$crossdock" convert "$source" "$out" --to universal --dry-run | grep -v '^note:'

title "The conversion"
flags=()
[[ -n ${2:-} ]] || flags+=(--overwrite)
"$crossdock" convert "$source" "$out" --to universal "${flags[@]}"

title "What is there now"
[[ ! -e $source ]] || echo "$(size "$source")    $source"
echo "$(size "$out")    $out on disk ($(size --apparent-size "$out") apparent)"
echo
for file in "$out"/*; do echo "  ${file#"$out/"}"; done
echo
echo "Every tensor, where it went, and its digest: $out/crossdock.json"

title "What next"
cat <<END
In the DeepSpeed config of your job, for its first start:

    "checkpoint": {"load_universal": true}

and in its code, after deepspeed.initialize(...):

    engine.load_checkpoint("$out")

A whole job that does this: examples/deepspeed_resume/
END
