#!/usr/bin/env bash
# Prints the path of Fulcio 1.8.8, which is built from Go's module proxy the first time (2 to 4 minutes on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=1.8.8

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/sigstore/fulcio@v$version"
}

cached_engine "fulcio-$version" fulcio build
