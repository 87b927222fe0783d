#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Makes the static libraries that this system's packages lack, for a build with CROSSDOCK_STATIC_DEPS: simdjson, ISA-L
# and xxHash on Debian and Ubuntu, from the sources of their own packages; everything, with Conan, on a system without apt
# (the manylinux images).
#
#   scripts/static_deps.sh FOLDER     then cmake -D CROSSDOCK_STATIC_DEPS=ON -D CMAKE_PREFIX_PATH=FOLDER
#
# A second run has nothing to do and says nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

(($# == 1)) || { echo "usage: scripts/static_deps.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
script=scripts/static_deps.sh
! cmp -s "$script" "$prefix/made_by" || exit 0  # the same script has made it

if ! command -v apt-get >/dev/null; then
  python3 -m pip install --quiet conan
  python3 -m conan profile detect --exist-ok
  python3 -m conan install scripts/conanfile.txt --output-folder="$prefix" --build=missing -s build_type=Release \
    -s compiler.cppstd=20 -o '*:shared=False' -o '*:fPIC=True'
  cp "$script" "$prefix/made_by"
  exit 0
fi

command -v nasm >/dev/null || { echo "static_deps: found no nasm: sudo apt-get install nasm" >&2; exit 1; }
echo "static_deps: building simdjson, ISA-L and xxHash into $prefix"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- The sources of the installed packages, by apt from this machine's mirror; apt's own lists stay as they are

mkdir -p "$work"/{sources.list.d,lists/partial,cache/archives/partial,get}
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [[ ! -e $file ]] || sed -n 's/^deb[[:space:]]/deb-src /p' "$file" >"$work/sources.list.d/$(basename "$file" .list).list"
done
for file in /etc/apt/sources.list.d/*.sources; do
  [[ ! -e $file ]] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/sources.list.d/$(basename "$file")"
done
apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/sources.list.d"
     -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
get() {  # get PACKAGE: prints the folder with the source that PACKAGE was built from
  local version
  version=$(dpkg-query -W -f='${source:Package}=${source:Version}' "$1")
  mkdir "$work/get/$1"
  (cd "$work/get/$1" && "${apt[@]}" source "$version" >/dev/null 2>"$work/log") || { cat "$work/log" >&2; return 1; }
  echo "$work/get/$1"/*/
}

# ---- Position-independent, for the plugins are shared libraries

folder=$(get libsimdjson-dev)
cmake -S "$folder" -B "$work/simdjson" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DSIMDJSON_DEVELOPER_MODE=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_INSTALL_LIBDIR=lib \
  -DCMAKE_INSTALL_PREFIX="$prefix" >"$work/log" && cmake --build "$work/simdjson" --target install >>"$work/log" ||
  { cat "$work/log" >&2; exit 1; }

folder=$(get libisal-dev)
make -C "$folder" -f Makefile.unx -s lib units=crc CFLAGS_="-O2 -fPIC" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
install -D -m 644 "$folder/bin/isa-l.a" "$prefix/lib/libisal.a"
install -D -m 644 -t "$prefix/include/isa-l" "$folder"/include/crc.h "$folder"/include/crc64.h

# Debian's libxxhash.a lacks the part that chooses among the processor's instructions, which its header promises.
folder=$(get libxxhash-dev)
(cd "$folder" && "${CC:-cc}" -O3 -DNDEBUG -fPIC -c xxhash.c xxh_x86dispatch.c && ar rcs libxxhash.a xxhash.o xxh_x86dispatch.o)
install -D -m 644 -t "$prefix/lib" "$folder/libxxhash.a"
install -D -m 644 -t "$prefix/include" "$folder"/xxhash.h "$folder"/xxh3.h "$folder"/xxh_x86dispatch.h
cp "$script" "$prefix/made_by"
