#!/usr/bin/env bash
# Prints the path of TesseraCT's POSIX server 0.1.2, which is built from Go's module proxy the first time (1 to 3 minutes on two
# cores): its own packages with a main of ours, because the one that it ships does not build against a released tessera.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$here/packages.sh"

version=0.1.2

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    cp "$here/tesseract/"* .
    CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} go build -trimpath -ldflags='-s -w' -o "$1/tesseract" .
}

cached_engine "tesseract-$version" tesseract build
