#!/bin/bash
# Runs demo.sh or run.sh, and clears up, however that ends: keeper.sh SCRIPT BUILD
#
# The script has no traps, it is simply killed; what it has started is in pid files.  This one only
# waits, so that a signal never meets bash in the middle of something.
set -u
table=/sesstab-${1%.sh}-$$
script=
status=

interrupted() {
    status=$1
    [ -z "$script" ] || { kill -9 -- "-$script" "$script"; wait "$script"; } 2>/dev/null
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP

dir=$(mktemp -d "${TMPDIR:-/tmp}/sesstab.XXXXXX") || exit 1
export table dir

setsid bash "${BASH_SOURCE%/*}/$1" "$2" &
script=$!
[ -z "$status" ] || interrupted "$status"    # the signal came before there was a script
wait "$script" 2>/dev/null
status=${status:-$?}
trap '' INT TERM HUP
[ "$1 $status" != "run.sh 130" ] || status=0    # Ctrl-C is how that one ends

# Gone, or dead and waiting to be collected by somebody else.
ended() { ! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null; }

for name in mushd persister redis; do
    read -r pid 2>/dev/null <"$dir/$name.pid" || continue
    kill "$pid" 2>/dev/null
    for ((i = 0; i < 500; i++)); do
        ! ended "$pid" || break
        sleep 0.02
    done
    kill -9 -- "-$pid" 2>/dev/null
done
rm -rf "$dir" "/dev/shm$table"
[ "$1 $status" != "run.sh 0" ] || echo "Stopped.  Nothing is left behind."
exit "$status"
