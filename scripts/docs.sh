#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds the documentation site into build/site. A link that leads nowhere, or a page that the menu lacks, is an error.
#
#   scripts/docs.sh [--serve]     --serve: shows it on this machine, and follows changes
#
# mkdocs is installed into build/docs-tools, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "" | --serve) ;;
  *) echo "usage: scripts/docs.sh [--serve]" >&2; exit 2 ;;
esac

tools=build/docs-tools
wanted='mkdocs>=1.6,<2 mkdocs-material>=9.6,<10'
if [[ $(cat "$tools/installed" 2>/dev/null) != "$wanted" ]]; then
  python3 -m venv --clear "$tools"
  # shellcheck disable=SC2086  # words
  "$tools/bin/python" -m pip --disable-pip-version-check --quiet install $wanted
  echo "$wanted" >"$tools/installed"
fi
export NO_MKDOCS_2_WARNING=1
if [[ ${1:-} == --serve ]]; then exec "$tools/bin/mkdocs" serve; fi
"$tools/bin/mkdocs" build --strict --clean
echo "docs: build/site/index.html"
