#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Runs a command in a fresh root of this machine's distribution that has its essential packages, Python with venv, and
# nothing else: no compiler, and none of our libraries. The root goes afterwards.
#
#   scripts/in_empty_root.sh FOLDER COMMAND...     FOLDER: its content is copied to /given, the command's current folder
#
# It needs root and debootstrap. The packages come from the mirror of this machine's apt, and are kept in build/ for the
# next time (a minute the first time, then twenty seconds).
set -euo pipefail
root_of_project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root_of_project/scripts/mirror.sh"

(($# > 1)) || { echo "usage: scripts/in_empty_root.sh FOLDER COMMAND..." >&2; exit 2; }
if ((EUID != 0)) || ! command -v debootstrap >/dev/null; then
  echo "in_empty_root: this needs root and debootstrap: sudo apt-get install debootstrap" >&2
  exit 2
fi
. /etc/os-release
mirror=$(mirror_of "$ID")
[[ -n $mirror ]] || { echo "in_empty_root: found no mirror of $ID in apt's sources: set DEBIAN_MIRROR" >&2; exit 2; }

work=$(mktemp -d)
runner=
clean_up() {
  if [[ -n $runner ]]; then { kill -KILL "$runner" && wait "$runner" || sleep 1; } 2>/dev/null; fi
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

kept=$root_of_project/build/empty_root-$VERSION_CODENAME.tar
if [[ ! -e $kept ]]; then
  echo "in_empty_root: making a root of $PRETTY_NAME"
  mkdir -p "$root_of_project/build"
  components=main
  [[ $ID != ubuntu ]] || components=main,universe
  debootstrap --variant=minbase --components="$components" --include=ca-certificates,python3,python3-venv \
    "$VERSION_CODENAME" "$work/new" "${mirror%/}" >"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
  tar -C "$work/new" --exclude=./var/cache/apt/archives/*.deb -cf "$kept.part" .
  mv "$kept.part" "$kept"
  rm -rf --one-file-system "${work:?}/new"
fi
mkdir "$work/root"
tar -C "$work/root" -xf "$kept"
cp -rL "$1" "$work/root/given"

# The command is the second process of process and mount namespaces of its own, which end with the first.
unshare --mount --pid --fork --kill-child bash -c '
  root=$1; shift
  mount -t proc proc "$root/proc"
  cd "$root/given"
  chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    ${http_proxy:+http_proxy="$http_proxy"} sh -c "cd /given && exec \"\$@\"" sh "$@"' run "$work/root" "${@:2}" </dev/null &
runner=$!
code=0
wait "$runner" || code=$?
runner=
exit "$code"
