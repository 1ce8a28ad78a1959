#!/usr/bin/env bash
# Prints the path of sigstore's timestamp server 2.1.3, which is built from Go's module proxy the first time (1 to 3 minutes on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=2.1.3

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@v$version"
}

cached_engine "timestamp-authority-$version" timestamp-server build
