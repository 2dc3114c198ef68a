#!/bin/sh
# The short version of `make redis-faults`; and docs/faults.md says what the program says.
set -eu

faults=$(dirname "$0")/faults
"$faults" --list | while IFS= read -r line; do
    grep -qxF -- "$line" docs/faults.md || {
        echo "docs/faults.md lacks a line of 'faults --list': $line"
        exit 1
    }
done
exec "$faults" --brief
