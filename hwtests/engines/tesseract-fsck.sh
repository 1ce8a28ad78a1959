#!/usr/bin/env bash
# Prints the path of fsck of TesseraCT 0.1.1, which is built from Go's module proxy the first time (10 seconds).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=0.1.1

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/transparency-dev/tesseract/cmd/fsck@v$version"
}

cached_engine "tesseract-fsck-$version" fsck build
