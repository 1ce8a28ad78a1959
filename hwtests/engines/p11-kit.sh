#!/usr/bin/env bash
# Prints the path of p11-kit's client module (p11-kit-client.so), and makes sure that the server ('p11-kit server') is there.
# Both are Debian packages; nothing is built.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

client_module() {
    local folder
    for folder in "/usr/lib/$(uname -m)-linux-gnu/pkcs11" /usr/lib64/pkcs11 /usr/lib/pkcs11; do
        [[ ! -e $folder/p11-kit-client.so ]] || {
            echo "$folder/p11-kit-client.so"
            return
        }
    done
    return 1
}

if ! command -v p11-kit >/dev/null || ! client_module >/dev/null; then
    need_packages p11-kit p11-kit-modules
fi
client_module || {
    say 'p11-kit is installed, but its client module p11-kit-client.so was not found'
    exit 1
}
