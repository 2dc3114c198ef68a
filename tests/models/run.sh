#!/bin/bash
# Runs the models (spin) and prints a row for each run.
#
#   tests/models/run.sh [full|smoke] [MODEL]   all runs of that size, of all models or one
#   tests/models/run.sh trail MODEL MUTANT     the steps that lead to the first fault, one per line
#
# What is run stands in tests/models/runs.  A run without a mutant must be proved: the search ends,
# nothing was cut off, no fault.  One with a mutant must be caught.  Exit status 1 if one is not so.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
memory=${MODEL_MEMORY_MB:-5000}
depth=5000000
scratch=$(mktemp -d)
child=
clean_up() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A verifier for MODEL, with DEFINITIONS; CHECK is safety or cycles.
build() {
    local model=$1 check=$2 mode=-DSAFETY
    shift 2
    [ "$check" = safety ] || mode=-DNP
    spin -a "$@" "$model.pml" >"$scratch/spin.out" 2>&1 || { cat "$scratch/spin.out" >&2; return 1; }
    # A guard such as "this process lives" reads what others write: no partial order reduction.
    cc -w "$mode" -DCOLLAPSE -DNOREDUCE -DMEMLIM="$memory" -o pan pan.c
}

# The verifier's word on it: proved, caught, or what went wrong.
verdict() {
    local mutant=$1 found=$2
    if ! [ "$found" -eq 0 ]; then
        [ "$mutant" = - ] && echo "FAULT" || echo "caught"
    elif grep -qE 'max search depth too small|out of memory|Search not completed|Interrupted' "$scratch/pan.out"; then
        echo "NOT FINISHED"
    else
        [ "$mutant" = - ] && echo "proved" || echo "SURVIVED"
    fi
}

# One line of `runs`.  1: it is not as it should be.
run() {
    local model=$1 mutant=$2 check=$3 definitions=$4 what=$5 cycles=
    [ "$check" = safety ] || cycles=-l
    local number=${mutant/-/0} begin=${EPOCHREALTIME/[.,]/} tenths
    # shellcheck disable=SC2086 # definitions are words
    build "$model" "$check" -DMUTANT="$number" $definitions || return 1
    ./pan -E -m"$depth" -w24 $cycles >"$scratch/pan.out" 2>&1 &
    child=$!
    wait "$child" || true
    child=
    local errors states result
    errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' "$scratch/pan.out")
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$scratch/pan.out")
    result=$(verdict "$mutant" "${errors:-0}")
    [ -n "$errors" ] || result="NOT FINISHED"
    tenths=$(((${EPOCHREALTIME/[.,]/} - begin) / 100000))
    printf '%-12s %-7s %-7s %10s %5d.%d  %-8s  %s\n' "$model" "$mutant" "$check" "${states:-?}" \
        $((tenths / 10)) $((tenths % 10)) "$result" "$what"
    [ "$result" = proved ] || [ "$result" = caught ]
}

# The lines of `runs` for SIZE and MODEL: "size model mutant check definitions | what".
each_run() {
    local size=$1 wanted=$2 bad=0 seen=0 line_size model mutant check rest
    while read -r line_size model mutant check rest; do
        [[ $line_size == "$size" || $line_size == both ]] || continue
        [[ -z $wanted || $wanted == "$model" ]] || continue
        seen=1
        run "$model" "$mutant" "$check" "${rest%%|*}" "${rest#*| }" || bad=1
    done < <(grep -vE '^ *(#|$)' "$here/runs")
    if [[ $seen = 0 ]]; then
        echo "there is no model '$wanted'" >&2
        return 64
    fi
    return $bad
}

trail() {
    local size model mutant check rest
    while read -r size model mutant check rest; do
        [[ $model == "$1" && $mutant == "$2" ]] || continue
        # shellcheck disable=SC2086
        build "$model" "$check" -DMUTANT="${mutant/-/0}" ${rest%%|*}
        ./pan -E -m"$depth" -w24 >"$scratch/pan.out" 2>&1 || true
        # shellcheck disable=SC2086
        spin -t -p -g -DMUTANT="${mutant/-/0}" ${rest%%|*} "$model.pml"
        return
    done < <(grep -vE '^ *(#|$)' "$here/runs")
    echo "tests/models/runs has no mutant $2 of $1" >&2
    return 1
}

if ! command -v spin >/dev/null; then
    echo "spin is missing; .ci/install ci installs it" >&2
    exit 1
fi
cp "$here"/*.pml "$scratch"
cd "$scratch"
case ${1:-full} in
full | smoke)
    printf '%-12s %-7s %-7s %10s %7s  %-8s  %s\n' model mutant check states seconds result \
        "bounds, or what the mutant does"
    each_run "${1:-full}" "${2:-}"
    ;;
trail)
    trail "${2:?which model?}" "${3:?which mutant?}"
    ;;
*)
    echo "usage: tests/models/run.sh [full|smoke] [MODEL] | trail MODEL MUTANT" >&2
    exit 64
    ;;
esac
