#!/usr/bin/env bash
# Prints the path of the Python of a virtual environment that has sigstore-python 4.5.1, installed from PyPI the first time.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=4.5.1

build() {
    need_program python3 'install Python 3.11 or later'
    # A virtual environment knows its own path: it is made where it stays, and linked from the cache.
    local place=$engine_cache/sigstore-python-$version-venv
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet "sigstore==$version" tuf
    ln -s "$place" "$1/venv"
}

cached_engine "sigstore-python-$version" venv/bin/python build
