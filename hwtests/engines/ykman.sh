#!/usr/bin/env bash
# Prints the path of ykman 5.9.2, Yubico's own tool, which is installed from PyPI the first time (about a minute).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=5.9.2

build() {
    # pyscard, ykman's binding to PC/SC, is built here: it needs a compiler, swig and the headers.
    need_packages gcc libc6-dev libpcsclite-dev python3 python3-dev python3-venv swig
    python3 -m venv "$1"
    "$1/bin/python3" -m pip install --quiet --disable-pip-version-check "yubikey-manager==$version"
    # The folder is renamed after this, and pip has written its path into the scripts: this one finds its Python beside it.
    cat >"$1/bin/ykman" <<'YKMAN'
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python3" -m ykman._cli "$@"
YKMAN
    chmod 0755 "$1/bin/ykman"
    "$1/bin/ykman" --version >&2
}

cached_engine "ykman-$version" bin/ykman build
