#!/bin/bash
# make demo: a chat server with four workers, 48 players on real TCP connections, and one crash
# after another.  Every line that a player should hear is waited for and compared, every claim is
# looked up in the table or in Redis; the first that is wrong ends the demo with status 1.
. "${BASH_SOURCE%/*}/stack.sh"

players=(Ada Alan Alonzo Annie Barbara Bjarne Brian Butler Charles Claude Dennis Donald Dorothy
    Douglas Edgar Edsger Ellen Frances Frank Fred George Grace Gordon Hedy Ivan Jean Jim John Karen
    Kathleen Ken Konrad Kurt Leslie Lynn Margaret Marvin Mary Maurice Niklaus Ole Peter Radia Raj
    Robin Shafi Sophie Tony)
all=${#players[@]}
patience=10    # seconds that anything may take

# ------------------------------------------------------------------ telling the story --------

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
chapters=0
checks=0

chapter() { printf '\n%s%d. %s%s\n\n' "$bold" $((++chapters)) "$1" "$plain"; }
tell() { printf '   %s\n' "$@"; }
ok() {
    checks=$((checks + 1))
    printf '   ok  %s\n' "$1"
}

# check WHAT COMMAND...: it must succeed, within a moment for what is written behind.
check() {
    eventually "$patience" "${@:2}" || fail "$1   (${*:2})"
    ok "$1"
}
equal() { [ "$1" = "$2" ]; }

# quote LINES TITLE TEXT: the first LINES of it.
quote() {
    printf '\n     %s%s%s\n' "$bold" "$2" "$plain"
    head -n "$1" <<<"$3" | sed "s/^/     $dim/; s/\$/$plain/"
    (($(wc -l <<<"$3") <= $1)) || echo "     ..."
    echo
}
# show LINES shmdump|redis-cli ARGUMENT...: as one would type it, and what it says.
show() {
    local output
    output=$("${@:2}" 2>&1) || fail "${*:2}: $output"
    quote "$1" "\$ ${*:2}" "$output"
}

# ------------------------------------------------------------------ the players --------------

# Player I's connection, and what mushd said about it.
declare -a fd=() handle=() worker=()

say() { printf '%s\r\n' "$2" >&"${fd[$1]}"; }

# The next line that player I hears must match a pattern; it is then in $heard.
hear() {
    IFS= read -r -t "$patience" -u "${fd[$1]}" heard ||
        fail "${players[$1]} heard nothing: not '$2'"
    heard=${heard%$'\r'}
    # shellcheck disable=SC2053
    [[ $heard == $2 ]] || fail "${players[$1]} heard '$heard': not '$2'"
}
# Says something to everybody: all but the players given after it must hear it.
announce() {
    say "$1" "say $2"
    hear "$1" "You say, \"$2\""
    for i in "${!fd[@]}"; do
        [[ " $1 ${*:3} " == *" $i "* ]] || hear "$i" "${players[$1]} says, \"$2\""
    done
}
# True when player I has nothing to read: neither a line nor the end of the connection.
undisturbed() { ! read -r -t 0 -u "${fd[$1]}"; }

arrive() {
    # shellcheck disable=SC1083
    exec {fd[$1]}<>"/dev/tcp/127.0.0.1/$port" || fail "cannot connect to port $port"
    hear "$1" 'Welcome to mushd.  You are connection * on worker *.'
    [[ $heard =~ connection\ ([0-9]+)\ on\ worker\ ([0-9]+) ]]
    handle[$1]=${BASH_REMATCH[1]} worker[$1]=${BASH_REMATCH[2]}
    hear "$1" 'Type "connect <player>"*'
}
ask_in() { say "$1" "connect ${players[$1]}"; }
is_in() { hear "$1" "Welcome, ${players[$1]}.  Your login is durable: Redis has it."; }
is_pending() {
    hear "$1" "Welcome, ${players[$1]}.  Redis does not answer: your login is pending."
}
is_settled() { hear "$1" "Your login as ${players[$1]} is durable now."; }
takes_over() { hear "$1" "You take over your detached session $2, last seen * ago."; }
# shellcheck disable=SC1083,SC2093
hang_up() {
    exec {fd[$1]}>&-
    unset "fd[$1]"
}
is_cut_off() { ! IFS= read -r -t "$patience" -u "${fd[$1]}" heard; }

# who_has I PATTERN COUNT: so many lines match of the WHO list that player I sees, kept in $who.
who_has() {
    who=
    say "$1" WHO
    hear "$1" 'Player *'
    while hear "$1" '*' && [[ $heard != *'You are on worker'* ]]; do
        who+=$heard$'\n'
    done
    equal "$(grep -cE -e "$2" <<<"$who")" "$3"
}

# The players on a worker; the first of them; how many they are.
on() { for i in "${!fd[@]}"; do [ "${worker[$i]}" = "$1" ] && echo "$i"; done; }
first_on() { on "$1" | head -n 1; }
count_on() { on "$1" | wc -l; }

# ------------------------------------------------------------------ the table and Redis ------

shmdump() { "$build/shmdump" "$@"; }
table_says() { shmdump "$table" | grep -qE "$1"; }
table_is_up() {
    table_says '^ready +yes' && table_says '^persister .* alive' &&
        table_says '^workers +6 alive, 0 dead'
}
table_has() { shmdump "$table" --session "$1" | grep -qE "$2"; }
table_is_sound() { shmdump "$table" --check >/dev/null; }

redis_has() { equal "$(redis hget "sesstab:conn:$1" "$2")" "$3"; }
redis_has_set() { equal "$(redis hget "sesstab:conn:$1:metadata" "$2")" "$3"; }
redis_forgot() { equal "$(redis exists "sesstab:conn:$1" "sesstab:conn:$1:metadata")" 0; }
redis_counts() { equal "$(redis scard sesstab:conn:active)" "$1"; }
typed_later() {
    [[ $(redis hget "sesstab:conn:$1" LastSeen) > $(redis hget "sesstab:conn:$2" LastSeen) ]]
}
# Every player's session is in Redis, with the right name, and no other is.
redis_agrees() {
    local got want
    got=$(for i in "${!fd[@]}"; do echo "hget sesstab:conn:${handle[$i]} PlayerRef"; done | redis)
    want=$(for i in "${!fd[@]}"; do echo "${players[$i]}"; done)
    equal "$got" "$want" && redis_counts "${#fd[@]}"
}
show_in_redis() {
    quote 20 "\$ redis-cli -s $socket hgetall $1" \
        "$(redis hgetall "$1" | paste - - | expand -t 17)"
}

worker_pid() { sed -n "s/.*worker $1 is process //p" "$dir/mushd.log" | tail -n 1; }
new_worker() { [ "$(worker_pid "$1")" != "$2" ]; }
milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }

# ============================================================================================

chapter "A table in shared memory, a persister, Redis, and a chat server with four workers"
start_redis
start_persister
start_mushd
tell "Redis writes every change to disk before it answers.  mushd listens on port $port."
check "the table is ready, its persister leads, and six processes share it" table_is_up
show 30 shmdump "$table"

chapter "$all players log in"
tell "Each has a TCP connection of its own; whichever worker is free takes it.  A login is" \
    "answered only when Redis has it."
for i in "${!players[@]}"; do arrive "$i"; done
begin=$(milliseconds)
for i in "${!players[@]}"; do ask_in "$i"; done
for i in "${!players[@]}"; do is_in "$i"; done
ok "all $all were told that their login is durable, within $(($(milliseconds) - begin)) ms"
check "Redis has each of them, under its name, and nobody else" redis_agrees
for w in 1 2 3 4; do
    (($(count_on $w))) || fail "worker $w has no player"
done
ok "they are on workers 1 to 4: $(count_on 1), $(count_on 2), $(count_on 3) and $(count_on 4)"
show_in_redis "sesstab:conn:${handle[0]}"

chapter "They talk, across workers"
a=$(first_on 1) b=$(first_on 3) c=$(first_on 4)
A=${players[$a]} B=${players[$b]} C=${players[$c]}
announce "$a" 'Good evening!'
ok "$A on worker 1 says 'Good evening!', and all $((all - 1)) others hear it"
say "$b" "page $A = Psst."
hear "$b" "You page $A: Psst."
hear "$a" "$B pages: Psst."
for i in "${!fd[@]}"; do undisturbed "$i" || fail "${players[$i]} heard the page, too"; done
ok "$B on worker 3 pages $A on worker 1, who alone hears it"
check "WHO, asked on worker 3, lists all $all" who_has "$b" ' logged-in .* durable ' "$all"
quote 6 "> WHO" "$who"
for w in 1 2 3 4; do
    who_has "$b" " logged-in .* $w +[0-9]+s\$" "$(count_on $w)" || fail "WHO is wrong on worker $w"
done
ok "and says of each on which worker it is"

chapter "They set things, are idle, leave and come back"
say "$b" 'set colour green'
hear "$b" 'colour is now green.'
check "$B's colour is in the table" table_has "${handle[$b]}" 'colour.*green'
check "and, a moment later, in Redis" redis_has_set "${handle[$b]}" colour green
sleep 2
say "$a" "idle $C"
hear "$a" "$C: idle for [2-9]s (session ${handle[$c]}, worker 4)."
ok "worker 1 knows that $C, on worker 4, is idle"
check "Redis knows that $A, who typed that, is not" typed_later "${handle[$a]}" "${handle[$c]}"
old=${handle[$c]}
say "$c" QUIT
hear "$c" 'Goodbye.'
check "$C quits; the workers know" who_has "$a" "^$C " 0
check "and Redis forgets session $old" redis_forgot "$old"
hang_up "$c"
arrive "$c"
ask_in "$c"
is_in "$c"
check "$C comes back, as session ${handle[$c]}" who_has "$a" "^$C +${handle[$c]} " 1

chapter "SIGKILL to worker 2, with $(count_on 2) players on it"
victims=$(on 2)
v=$(first_on 2) V=${players[$(first_on 2)]}
killed=$(worker_pid 2)
say "$v" 'set colour blue'
hear "$v" 'colour is now blue.'
kill -9 "$killed"
begin=$(milliseconds)
# shellcheck disable=SC2086
announce "$a" 'Did you hear something?' $victims
ok "on workers 1, 3 and 4 everybody talks and hears, $(($(milliseconds) - begin)) ms later"
for i in $victims; do
    is_cut_off "$i" || fail "${players[$i]} still has a connection to a dead worker"
    hang_up "$i"
done
check "those who were on worker 2 are detached; their logins are not lost" \
    who_has "$a" ' detached .* durable ' "$(wc -w <<<"$victims")"
for i in "${!fd[@]}"; do
    undisturbed "$i" || fail "${players[$i]} on worker ${worker[$i]} was disturbed"
done
ok "nobody else noticed anything"
check "Redis says so too" redis_has "${handle[$v]}" State detached
check "mushd has started a new worker 2" new_worker 2 "$killed"
show 5 shmdump "$table" --state detached --sort player
tell "They call again, and get what was theirs:"
for i in $victims; do
    old=${handle[$i]}
    arrive "$i"
    ask_in "$i"
    is_in "$i"
    takes_over "$i" "$old"
done
ok "each of them took over the detached session"
check "which is gone: nobody is detached now" who_has "$a" ' detached ' 0
check "$V's colour came along" redis_has_set "${handle[$v]}" colour blue
check "Redis has each of the $all, under its name, and nobody else" redis_agrees
check "shmdump --check finds nothing wrong with the table" table_is_sound

chapter "SIGKILL to the persister"
kill_hard persister
say "$b" 'set colour red'
hear "$b" 'colour is now red.'
check "the workers carry on: $B's colour is red" table_has "${handle[$b]}" 'colour.*red'
check "though Redis has not heard of it" redis_has_set "${handle[$b]}" colour green
old=${handle[$c]}
hang_up "$c"
check "$C's connection breaks, and $C is gone" who_has "$a" "^$C " 0
arrive "$c"
ask_in "$c"
is_pending "$c"
ok "$C comes back, and after two seconds is told the truth: pending"
check "everybody can see that" who_has "$a" "^$C .* pending " 1
start_persister
is_settled "$c"
ok "a new persister starts, and $C is told: durable"
check "what waited in the table is in Redis" redis_has_set "${handle[$b]}" colour red
check "and what was removed from the table is not" redis_forgot "$old"

chapter "Redis stops, and starts again"
stop redis
old=${handle[$c]}
hang_up "$c"
arrive "$c"
ask_in "$c"
announce "$a" 'Is Redis gone?' "$c"
ok "everybody talks and hears; nobody waits for Redis but $C, who is logging in"
is_pending "$c"
check "$C is told the truth, and is in: pending" who_has "$a" "^$C .* pending " 1
show 8 shmdump "$table" --session "${handle[$c]}"
start_redis
is_settled "$c"
ok "Redis is back, and $C is told: durable"
check "Redis has each of the $all, under its name, and nobody else" redis_agrees
check "and nothing of the session that ended meanwhile" redis_forgot "$old"

chapter "A power cut: everything is killed in one moment, and shared memory is lost"
kill_hard mushd persister redis
rm "/dev/shm$table" || fail "there was no segment"
for i in "${!fd[@]}"; do hang_up "$i"; done
was=("${handle[@]}")
start_redis
start_persister
start_mushd
tell "Redis has read its file; the persister has made a new table and loaded Redis into it."
arrive "$a"
check "all $all are there, detached" who_has "$a" ' detached .* durable ' "$all"
quote 4 "> WHO" "$who"
hang_up "$a"
begin=$(milliseconds)
for i in "${!players[@]}"; do arrive "$i"; done
for i in "${!players[@]}"; do ask_in "$i"; done
for i in "${!players[@]}"; do is_in "$i"; takes_over "$i" "${was[$i]}"; done
ok "all $all call again and take their sessions over, within $(($(milliseconds) - begin)) ms"
check "WHO lists them, once each" who_has "$a" ' logged-in .* durable ' "$all"
check "nobody is detached" who_has "$a" ' detached ' 0
check "$B's colour is still red" redis_has_set "${handle[$b]}" colour red
check "Redis has each of the $all, under its name, and nobody else" redis_agrees
check "shmdump --check finds nothing wrong with the table" table_is_sound

chapter "Good night"
stop mushd
check "mushd stops when it is told to" equal "$status" 0
for i in "${!players[@]}"; do hear "$i" 'The server is going down.  Goodbye.'; done
ok "it has said goodbye to everybody"
check "nobody is left in Redis" redis_counts 0
stop persister
check "the persister stops when it is told to" equal "$status" 0
stop redis
check "so does Redis" equal "$status" 0
rm "/dev/shm$table"

printf '\n%s%d checks, all right, in %d seconds.%s  Nothing is left running, nor in /dev/shm.\n\n' \
    "$bold" "$checks" "$SECONDS" "$plain"
