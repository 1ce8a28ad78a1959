#!/usr/bin/env bash
# Ends what up.sh started, by process number.
for file in "$WORK"/run/*.pid; do
    kill "$(cat "$file")" 2>/dev/null
    rm -f "$file"
done
