#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Runs the quick tests of the committed tree on each distribution that we support, in a fresh root made by debootstrap.
# For before a release; CI has one distribution only. A distribution takes five minutes or so and 2 GB of disk.
#
#   scripts/test_distros.sh [--in FOLDER] [bookworm|trixie|noble]...     without a name: all; FOLDER: in place of /tmp
#
# It needs root and debootstrap (and, for Ubuntu on a Debian machine, the package ubuntu-keyring). The mirrors are those
# of this machine's apt, or DEBIAN_MIRROR and UBUNTU_MIRROR from the environment. Logs: build/distros/NAME.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { echo "usage: scripts/test_distros.sh [--in FOLDER] [bookworm|trixie|noble]..." >&2; exit 2; }

parent=${TMPDIR:-/tmp}
if [[ ${1:-} == --in ]]; then
  (($# > 1)) || usage
  parent=$2
  shift 2
fi
(($#)) || set -- bookworm trixie noble
for name; do [[ $name =~ ^(bookworm|trixie|noble)$ ]] || usage; done
if ((EUID != 0)) || ! command -v debootstrap >/dev/null; then
  echo "test_distros: this needs root and debootstrap: sudo apt-get install debootstrap, then sudo scripts/test_distros.sh" >&2
  exit 2
fi

# ---- What has to go again, however this ends

work=$(mktemp -d -p "$parent" crossdock-distros.XXXXXX)
runner=
clean_up() {
  # What ran in the root, and what it mounted, is in namespaces of its own, which end with their first process.
  if [[ -n $runner ]]; then { kill -KILL "$runner" && wait "$runner" || sleep 1; } 2>/dev/null; fi
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# ---- One distribution

. scripts/mirror.sh

# Runs as the first process of process and mount namespaces of its own.
in_namespaces='
  set -euo pipefail
  name=$1 mirror=$2 components=$3 root=$4
  debootstrap --variant=minbase --components="$components" --include=ca-certificates "$name" "$root" "$mirror"
  mount -t proc proc "$root/proc"
  mkdir "$root/crossdock"
  tar -x -C "$root/crossdock" -f "$root.tar"
  chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    /crossdock/scripts/test.sh --quick'

# check NAME MIRROR COMPONENTS LOG: the quick tests in a new root
check() {
  git archive -o "$work/$1.tar" HEAD || return 1
  unshare --mount --pid --fork --kill-child bash -c "$in_namespaces" check "$1" "$2" "$3" "$work/$1" \
    </dev/null >"$4" 2>&1 &
  runner=$!
  local code=0
  wait "$runner" || code=$?
  runner=
  rm -rf --one-file-system "${work:?}/$1"
  return "$code"
}

mkdir -p build/distros
passed=0 failed=0
for name; do
  case $name in
    bookworm) title="Debian 12 (bookworm)" vendor=debian components=main ;;
    trixie) title="Debian 13 (trixie)" vendor=debian components=main ;;
    noble) title="Ubuntu 24.04 (noble)" vendor=ubuntu components=main,universe ;;
  esac
  printf '%s: ' "$title"
  mirror=$(mirror_of "$vendor")
  log=build/distros/$name.log
  if [[ -z $mirror ]] || ! wget -q -O /dev/null --tries=2 --timeout=20 "${mirror%/}/dists/$name/Release"; then
    echo "skipped: no mirror"
  elif check "$name" "${mirror%/}" "$components" "$log"; then
    echo "passed"
    passed=$((passed + 1))
  else
    echo "failed: see $log"
    failed=$((failed + 1))
  fi
done
((failed == 0 && passed > 0))
