#!/bin/bash
# make run: Redis, a persister and mushd with four workers, until Ctrl-C.
. "${BASH_SOURCE%/*}/stack.sh"

start_redis
start_persister
start_mushd

cat <<TEXT

mushd runs, with four workers.  In another terminal, try:

    telnet 127.0.0.1 $port                 connect <name>, help, WHO, say, page, ...

    $build/shmdump $table
    $build/shmdump $table --sessions
    $build/shmdump $table --workers

    redis-cli -s $socket keys '*'

    kill -9 <a worker's process>

Ctrl-C here stops everything.  These are the logs:

TEXT
tail -q -n +1 -F "$dir/persister.log" "$dir/mushd.log" 2>/dev/null &
wait -n "${pid[@]}"
fail "one of the programs has ended"
