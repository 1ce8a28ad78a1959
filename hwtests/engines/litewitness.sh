#!/usr/bin/env bash
# Prints the path of litewitness 0.6.1 (filippo.io/torchwood), a witness of transparency logs, which is built from Go's module
# proxy the first time (a minute on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=0.6.1
module=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/litewitness

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    cp -r "$module/." .
    CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go build -mod=mod -trimpath -ldflags='-s -w' -o "$1/litewitness" filippo.io/torchwood/cmd/litewitness
}

cached_engine "litewitness-$version" litewitness build
