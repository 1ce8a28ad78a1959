#!/usr/bin/env bash
# Prints the path of a test-only HashiCorp Vault 1.21.4: the server itself with the transit secrets engine and the logins
# approle, userpass and kubernetes, in memory. It is built from Go's module proxy the first time (5 to 10 minutes on two
# cores). Vault is under the Business Source Licence: what this builds is for tests on this machine, and is never shipped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$here/packages.sh"

version=1.21.4
sdk=0.21.0

build() {
    need_program go 'install Go 1.26 or later: https://go.dev/doc/install'
    need_packages ca-certificates python3
    export GOTOOLCHAIN=${GOTOOLCHAIN:-local}
    local modules
    modules=$(go env GOMODCACHE)
    (cd / && go mod download "github.com/hashicorp/vault@v$version" "github.com/hashicorp/vault/sdk@v$sdk")
    # Vault's own requirements, without the replace lines that point into its repository.
    awk '/^replace github.com\/hashicorp\/vault\//{next} /^module /{print "module vaulttransit"; next} {print}' \
        "$modules/cache/download/github.com/hashicorp/vault/@v/v$version.mod" >go.mod
    echo "require github.com/hashicorp/vault v$version" >>go.mod
    # This version was built against a state of the sdk between two releases.
    mkdir sdk
    cp -r "$modules/github.com/hashicorp/vault/sdk@v$sdk/." sdk
    chmod -R u+w sdk
    python3 "$here/vault-transit/patch-sdk.py" sdk
    go mod edit -replace github.com/hashicorp/vault/sdk=./sdk
    cp "$here/vault-transit/main.go" .
    GOFLAGS=-mod=mod go build -p 2 -trimpath -ldflags '-s -w' -o "$1/vault-transit" .
}

cached_engine "vault-$version" vault-transit build
