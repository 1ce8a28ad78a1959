#!/usr/bin/env bash
# Prints the path of the PKCS#11 module of Kryoptic 1.5.4, which is built from the Rust registry the first time (about 3
# minutes on two cores). Kryoptic is a software token with PKCS#11 3.2 and ML-DSA; KRYOPTIC_CONF names its configuration.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$here/packages.sh"

version=1.5.4

build() {
    need_program cargo 'install Rust: https://rustup.rs'
    need_packages gcc libc6-dev make perl libclang-dev
    # In the scratch folder, so that signerd's cargo configuration is not applied to a foreign crate.
    cp -r "$here/kryoptic/." .
    engine_cargo build --release --locked --package kryoptic
    strip --strip-unneeded -o "$1/libkryoptic_pkcs11.so" target/release/libkryoptic_pkcs11.so
}

cached_engine "kryoptic-$version" libkryoptic_pkcs11.so build
