#!/usr/bin/env bash
# Prints the path of a Python with the vendors' own clients of their key management services (boto3, google-cloud-kms,
# azure-keyvault-keys), which are installed from PyPI the first time.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# google-crc32c is what Google's own examples check answers with.
clients=(boto3==1.44.8 google-cloud-kms==3.18.0 azure-keyvault-keys==4.11.3 azure-identity==1.27.0 google-crc32c==1.8.0)

build() {
    need_packages python3 python3-venv ca-certificates
    # Its python finds its packages by where it lies, so that the folder can be renamed; only its scripts could not.
    python3 -m venv --copies "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${clients[@]}"
}

cached_engine "kms-clients-2" bin/python build
