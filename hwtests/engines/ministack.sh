#!/usr/bin/env bash
# Prints the path of ministack 1.5.33, a server of AWS's API for tests (its KMS signs with real keys), which is installed from
# PyPI into an environment of its own the first time (half a minute).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=1.5.33
cryptography=50.0.2

build() {
    need_program python3 'install Python 3.10 or later'
    python3 -c 'import venv, ensurepip' 2>/dev/null || need_packages python3-venv
    # At its last place already: an environment holds its own path.
    local place=$engine_cache/ministack-$version-venv
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check "ministack==$version" "cryptography==$cryptography"
    printf '#!/bin/sh\nexec %q/bin/ministack "$@"\n' "$place" >"$1/ministack"
    chmod +x "$1/ministack"
}

cached_engine "ministack-$version" ministack build
