#!/usr/bin/env bash
# Prints the path of versitygw 1.8.0, which serves S3 over a folder, built from Go's module proxy the first time (1 to 2 minutes on
# two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=1.8.0

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/versity/versitygw/cmd/versitygw@v$version"
}

cached_engine "versitygw-$version" versitygw build
