# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by demo.sh and run.sh, which keeper.sh runs: starts and stops Redis, a persister and
# mushd.  All are private: a directory, a Unix socket, a free port, a table with a name of its own.
#
#   $build     where the programs are                   $port    mushd's
#   $table     the table's name, from the keeper        $pid     by name: redis persister mushd
#   $dir       logs, pid files and Redis's files,       $status  of what was stopped last
#              from the keeper
set -u
export LC_ALL=C
trap : PIPE    # a player's connection may break at any moment
build=$1
socket=$dir/redis.sock
port=
declare -A pid=()

fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    for log in "$dir"/*.log; do
        [ -s "$log" ] && printf '\n%s:\n' "${log##*/}" >&2 && tail -n 15 "$log" >&2
    done
    exit 1
}

# eventually SECONDS COMMAND...: polls until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS <= deadline)) || return 1
        sleep 0.02
    done
}

# start NAME COMMAND...: in a process group of its own, and without this shell's connections.
start() {
    (
        echo "$BASHPID" >"$dir/$1.pid"
        for open in /proc/self/fd/*; do
            ((${open##*/} < 3)) || eval "exec ${open##*/}>&-"
        done
        exec setsid "${@:2}"
    ) </dev/null >>"$dir/$1.log" 2>&1 &
    pid[$1]=$!
}

running() { kill -0 "${pid[$1]}" 2>/dev/null; }

collect() {
    wait "${pid[$1]}" 2>/dev/null
    status=$?
    rm -f "$dir/$1.pid"
    unset "pid[$1]"
}

# stop NAME: and waits for its end; kill_hard NAME...: with all their children, in one moment.
stop() {
    kill "${pid[$1]}"
    collect "$1"
}
kill_hard() {
    local groups=()
    for name; do groups+=("-${pid[$name]}"); done
    {
        kill -9 -- "${groups[@]}"
        for name; do collect "$name"; done
    } 2>/dev/null    # bash would announce each death
}

redis() { redis-cli -s "$socket" "$@"; }
redis_answers() { [ "$(redis ping 2>/dev/null)" = PONG ]; }

# appendfsync always: what Redis has acknowledged survives a power cut.
start_redis() {
    start redis redis-server --port 0 --unixsocket "$socket" --unixsocketperm 700 --dir "$dir" \
        --save '' --appendonly yes --appendfsync always
    eventually 10 redis_answers || fail "Redis does not start"
}

start_persister() {
    start persister "$build/persister" --table "$table" --create --redis "unix:$socket"
}

mushd_ready() {
    running mushd || fail "mushd does not start"
    port=$(sed -n 's/.* ready on port //p' "$dir/mushd.log")
    [ -n "$port" ]
}
start_mushd() {
    : >"$dir/mushd.log"
    start mushd "$build/mushd" --table "$table" --port 0 --workers 4
    eventually 15 mushd_ready || fail "mushd does not get ready"
}
