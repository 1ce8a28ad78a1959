#!/usr/bin/env bash
# Prints the path of the Parsec service 1.5.0, with its PKCS#11 and TPM providers, which is built from the Rust registry the
# first time (about 3 minutes on two cores).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=1.5.0
features=pkcs11-provider,tpm-provider,unix-peer-credentials-authenticator,direct-authenticator

build() {
    need_program cargo 'install Rust: https://rustup.rs'
    need_packages gcc g++ libc6-dev make cmake python3 pkg-config libclang-dev
    engine_cargo install parsec-service --version "$version" --locked --no-track --root "$1" \
        --no-default-features --features "$features"
}

# Also to run it: a cache may come from another machine.
need_packages libtss2-dev
cached_engine "parsec-$version" bin/parsec build
