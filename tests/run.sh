#!/bin/sh
# Runs the test programs given, CHECK_JOBS of them at a time, and says at the end what failed.  A
# program's output is shown when it fails.  Each has ten minutes, which means that it hangs.
set -u

# One program: prints its line, and leaves its counts in the directory SESSTAB_CHECK_DIR.
run_one() {
    name=$(basename "$1")
    out=$SESSTAB_CHECK_DIR/$name
    begin=$(date +%s)
    timeout --foreground -k 10 600 "$1" >"$out" 2>&1
    status=$?
    ok=$(grep -c '^\[       OK \]' "$out")
    bad=$(sed -n 's/^ *\([0-9]*\) FAILED TEST(S)$/\1/p' "$out" | head -n 1)
    bad=${bad:-0}
    skip=$(grep -c '^\[  SKIPPED \] [a-z_]*$' "$out")
    [ $status -eq 0 ] && [ "$ok" -eq 0 ] && ok=1
    [ $status -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    {
        printf '  TEST  %-20s %3d passed, %d failed, %d skipped, %d s\n' "$name" "$ok" "$bad" "$skip" \
            $(($(date +%s) - begin))
        if [ $status -ne 0 ]; then
            echo "        exit status $status; its output:"
            tail -n 200 "$out" | sed 's/^/        | /'
        fi
    } >"$out.said"
    cat "$out.said"
    echo "$ok $bad $skip" >"$out.counts"
}

if [ -n "${SESSTAB_CHECK_DIR:-}" ]; then
    run_one "$1"
    exit 0
fi

SESSTAB_CHECK_DIR=$(mktemp -d) || exit 1
export SESSTAB_CHECK_DIR
trap 'rm -rf "$SESSTAB_CHECK_DIR"' EXIT
trap 'exit 130' INT TERM
printf '%s\n' "$@" | xargs -n 1 -P "${CHECK_JOBS:-2}" "$0"

awk -v programs=$# '{ passed += $1; failed += $2; skipped += $3 }
    END { failed += programs - NR # a program that did not even come to its counts
          printf "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped
          exit failed > 0 }' "$SESSTAB_CHECK_DIR"/*.counts
