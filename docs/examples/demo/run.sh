#!/bin/bash
# make run: Redis, a persister and mushd with four workers, until Ctrl-C.
. "${BASH_SOURCE%/*}/stack.sh"

start_redis
start_persister
start_mushd

all_started() { (($(grep -c ' is process ' "$dir/mushd.log") == 4)); }
eventually 5 all_started
workers=$(sed -n 's/.*worker [0-9]* is process //p' "$dir/mushd.log" | tr '\n' ' ')

cat <<TEXT

mushd runs, with four workers.  In another terminal, try:

    telnet 127.0.0.1 $port                 connect <name>, help, WHO, say, page, ...

or, without telnet:

    bash -c 'exec 3<>/dev/tcp/127.0.0.1/$port; cat <&3 & cat >&3'

    $build/shmdump $table
    $build/shmdump $table --sessions
    $build/shmdump $table --workers

    redis-cli -s $socket hgetall sesstab:conn:1

    kill -9 ${workers%% *}               one of mushd's workers: ${workers% }

(mushd counts its workers from 1, the table has names of its own for them: go by the process.)

Ctrl-C here stops everything.  These are the logs:

TEXT
tail -q -n +1 -F "$dir/persister.log" "$dir/mushd.log" 2>/dev/null &
wait -n "${pid[@]}"
fail "one of the programs has ended"
