#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Installs what building and testing need: Debian packages, and a Python environment for the tests in .venv.
#
#   scripts/setup.sh [--no-python]     without the Python side: building, unit tests and the demo do not need it, nor clang
#
# A second run has nothing to do and says nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(g++ cmake ninja-build ccache libboost-dev libboost-program-options-dev libboost-filesystem-dev
          libfmt-dev libprotobuf-dev protobuf-compiler catch2 libsimdjson-dev libisal-dev zlib1g-dev
          libxxhash-dev libssl-dev)
with_python=yes
case "${1:-}" in
  "")
    packages+=(clang libclang-rt-dev python3 python3-venv python3-dev)  # clang for sanitizers and fuzzers
    packages+=(slurm-wlm munge openmpi-bin)  # the launchers of tests/interop/test_launchers.py
    packages+=(zsh fish groff)  # tests/shells
    packages+=(nasm make dpkg-dev file debootstrap pkg-config)  # scripts/wheel.sh, scripts/test_deb.sh, tests/install
    ;;
  --no-python) with_python=no ;;
  *) echo "usage: scripts/setup.sh [--no-python]" >&2; exit 2 ;;
esac

# ---- Debian packages

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  if ((EUID == 0)); then
    sudo=()
  elif sudo -n true 2>/dev/null; then
    sudo=(sudo)
  else
    echo "These packages are missing. Please install them, then run this again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  # Debian starts the services of a package that it installs, now and at every boot. Slurm and munge are wanted as
  # programs only: tests/launchers starts its own, with its own settings.
  (
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
      trap '"${sudo[@]}" rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" install -m 755 /dev/stdin "$policy"
    fi
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  )
  if [[ -d /run/systemd/system ]]; then
    [[ " ${missing[*]} " != *" slurm-wlm "* ]] || "${sudo[@]}" systemctl disable --quiet slurmctld slurmd
    [[ " ${missing[*]} " != *" munge "* ]] || "${sudo[@]}" systemctl disable --quiet munge
  fi
fi
[[ $with_python == yes ]] || exit 0

# ---- Python

requirements=tests/requirements.txt
stamp=.venv/installed-requirements.txt  # what .venv was made from: the same text means there is nothing to do
cmp -s "$requirements" "$stamp" && .venv/bin/python -c '' 2>/dev/null && exit 0

usable='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))'
for python in python3 /usr/bin/python3 python3.{13,12,11,10} ""; do
  [[ -n $python ]] || { echo "setup: found no Python of version 3.10 or later that has venv" >&2; exit 1; }
  "$python" -c "$usable" 2>/dev/null && break
done
echo "setup: installing the Python libraries of $requirements into .venv (several minutes the first time)"
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet install)
# DeepSpeed's build imports torch, so torch is there before it, and its build is not isolated from it.
"${pip[@]}" "$(grep '^torch==' "$requirements")" setuptools wheel ninja packaging py-cpuinfo psutil
"${pip[@]}" --no-build-isolation -r "$requirements"
cp "$requirements" "$stamp"
