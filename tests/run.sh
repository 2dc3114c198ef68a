#!/bin/sh
# Runs the test programs given, one after the other, and says at the end what failed.  A program's
# output is shown when it fails.  Each has ten minutes, which means that it hangs.
set -u

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

passed=0 failed=0 skipped=0
for program in "$@"; do
    name=$(basename "$program")
    printf '  TEST  %-18s ' "$name"
    begin=$(date +%s)
    timeout --foreground -k 10 600 "$program" >"$dir/out" 2>&1
    status=$?
    ok=$(grep -c '^\[       OK \]' "$dir/out")
    bad=$(sed -n 's/^ *\([0-9]*\) FAILED TEST(S)$/\1/p' "$dir/out" | head -n 1)
    bad=${bad:-0}
    skip=$(grep -c '^\[  SKIPPED \] [a-z_]*$' "$dir/out")
    [ $status -eq 0 ] && [ "$ok" -eq 0 ] && ok=1
    [ $status -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%3d passed, %d failed, %d skipped, %d s\n' "$ok" "$bad" "$skip" $(($(date +%s) - begin))
    if [ $status -ne 0 ]; then
        echo "        exit status $status; its output:"
        tail -n 200 "$dir/out" | sed 's/^/        | /'
    fi
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
