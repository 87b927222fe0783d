#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Makes Debian packages of this distribution (build/package/packages/*.deb), then installs, uses and removes them in a root
# that has neither a compiler nor a library of ours.
#
#   scripts/test_deb.sh     needs root and debootstrap
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rm -rf build/package/packages
scripts/build.sh package >build/package-build.log 2>&1 || { tail -n 30 build/package-build.log >&2; exit 1; }
(cd build/package && cpack) >build/package-cpack.log 2>&1 || { tail -n 30 build/package-cpack.log >&2; exit 1; }
rm -rf build/package/packages/_CPack_Packages
for package in build/package/packages/*.deb; do
  echo "deb: $package ($(du -h "$package" | cut -f1)): $(dpkg-deb --field "$package" Depends)"
done

given=$(mktemp -d)
trap 'rm -rf "$given"' EXIT
cp -r build/package/packages/*.deb scripts/try_installed.py examples/tiny_llama "$given/"
scripts/in_empty_root.sh "$given" bash -euc '
  for program in cc gcc g++ cmake; do
    if command -v "$program"; then echo "expected no $program here"; exit 1; fi
  done
  {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends ./crossdock_*.deb
    apt-get install -y -qq --no-install-recommends ./crossdock-dev_*.deb
  } >log 2>&1 || { tail -n 20 log; exit 1; }
  python3 try_installed.py crossdock tiny_llama
  python3 -c "import crossdock_manifest"
  for file in share/man/man1/crossdock.1 share/bash-completion/completions/crossdock include/crossdock/host.h; do
    test -s "/usr/$file"
  done
  apt-get purge -y -qq crossdock crossdock-dev >log 2>&1 || { tail -n 20 log; exit 1; }
  left=$(find /usr /etc -path "*crossdock*")
  if test -n "$left"; then echo "expected nothing left of the packages, found $left"; exit 1; fi
  echo "deb: installed, used and removed"'
