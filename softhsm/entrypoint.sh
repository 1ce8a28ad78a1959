#!/usr/bin/env bash
# What the container runs: makes the token when there is none, then serves it. Its arguments are setup.sh's options.
set -euo pipefail

dir=/var/lib/signerd
"$(dirname "$0")/setup.sh" --dir "$dir" --socket "$SIGNERD_SOCKET" "$@" >/dev/null
exec signerd --config "$dir/signerd.toml"
