# SPDX-License-Identifier: Apache-2.0

# To be sourced: where this machine's apt gets its packages from.

# mirror_of debian|ubuntu: prints the address; nothing where there is none. DEBIAN_MIRROR and UBUNTU_MIRROR win.
mirror_of() {
  local given=DEBIAN_MIRROR label=Debian
  [[ $1 == debian ]] || given=UBUNTU_MIRROR label=Ubuntu
  if [[ -n ${!given:-} ]]; then
    echo "${!given}"
  else
    # apt reads its sources in all their forms for us. (The security archive has a label of its own.)
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $label" 2>/dev/null | sed -n 1p
  fi
}
