#!/usr/bin/env bash
# Prints the path of MinIO, an S3 server, which is built from Go's module proxy the first time (2 to 4 minutes on two cores). Its
# licence (AGPL) is for whoever ships it: here it is a server to test against.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=0.0.0-20260212201848-7aac2a2c5b7c

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates
    GOBIN=$1 CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local} \
        go install -trimpath -ldflags='-s -w' "github.com/minio/minio@v$version"
}

cached_engine "minio-$version" minio build
