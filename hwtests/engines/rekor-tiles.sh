#!/usr/bin/env bash
# Prints the path of Rekor v2's POSIX server 2.3.0, which is built from Go's module proxy the first time (1 to 3 minutes on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=2.3.0

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix@v$version"
    mv "$1/posix" "$1/rekor-tiles"
}

cached_engine "rekor-tiles-$version" rekor-tiles build
