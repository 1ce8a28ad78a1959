#!/usr/bin/env bash
# Prints the path of sigstore-js's command, @sigstore/cli 0.10.3, installed from npm the first time.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=0.10.3

build() {
    need_program npm 'install Node.js 20 or later'
    (cd "$1" && npm install --force --no-audit --no-fund "@sigstore/cli@$version")
}

cached_engine "sigstore-js-$version" node_modules/.bin/sigstore build
