#!/usr/bin/env bash
# Prints a folder with playwright-core 1.65.1 and axe-core 4.11.0, installed from npm the first time: with the one, tests drive
# Debian's Chromium, with the other they look for what keeps people from using a page.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

version=1.65.1
axe=4.11.0

build() {
    need_program npm 'install Node.js 20 or later'
    # The browser is Debian's: playwright-core brings none.
    (cd "$1" && npm install --no-audit --no-fund "playwright-core@$version" "axe-core@$axe")
}

need_packages chromium fonts-dejavu-core >&2
folder=$(cached_engine "playwright-$version" node_modules/axe-core/package.json build)
echo "${folder%/node_modules/*}"
