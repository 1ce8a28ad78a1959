#!/usr/bin/env bash
# Prints the path of cosign 3.1.3, which is built from Go's module proxy the first time (3 to 7 minutes on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=3.1.3

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    # Without cgo no C compiler is needed, and the program runs in any container.
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/sigstore/cosign/v3/cmd/cosign@v$version"
}

cached_engine "cosign-$version" cosign build
