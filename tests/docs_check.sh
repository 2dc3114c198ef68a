#!/bin/sh
# What the documents name exists: options, events, metrics, functions, tests, files, make's targets.
# Each check prints what it did not find, and whether that was nothing, the way cmocka does, for
# run.sh.  SESSTAB_BIN is where the programs are.
set -u

cd "$(dirname "$0")/.." || exit 1
bin=${SESSTAB_BIN:-build}
programs="persister shmdump sesstabctl"
texts="README.md docs/operating.md docs/faults.md docs/guarantees.md docs/design.md"
units=docs/systemd/*.service
failed=0

# Those names of standard input that are not among the lines of $1.
lacking() { sort -u | grep -vxF -e "$1"; }

long_options() { grep -oE '(^|[^a-zA-Z-])--[a-z][a-z-]*[a-z]' | grep -oE -e '--.*'; }
options_of() { "$bin/$1" --help | long_options | sort -u; }

# In a man page an option is "Fl -name", in the synopsis or an item; --help must have the same ones.
man_pages_and_help_name_the_same_options() {
    for program in $programs; do
        manual=$(grep -E '^\.(It|Op) ' "docs/$program.1" | grep -oE '(Fl|,) -[a-z][a-z-]+' |
            sed 's/.* -/--/' | sort -u)
        help=$(options_of "$program")
        echo "$manual" | lacking "$help" | sed "s/$/ in $program --help/"
        echo "$help" | lacking "$manual" | sed "s/$/ in docs\/$program.1/"
    done
}

# What stands behind a program's name on a line must be that program's; elsewhere, any of ours.
every_option_in_the_texts_exists() {
    for program in $programs; do
        sed -nE "s/^(ExecStart=| +)($program .*)/\2/p" $texts $units | sed 's/[#|].*//' |
            long_options | lacking "$(options_of "$program")" | sed "s/$/ ($program)/"
    done
    others=$(printf -- '--%s\n' now ipc shm-size unix-socket latency list)
    ours=$(for program in $programs; do options_of "$program"; done)
    cat $texts $units | long_options | lacking "$(printf '%s\n%s' "$ours" "$others")"
}

events_logged() {
    cat tools/*.c | tr -s '\n ' ' ' | grep -oE 'log_event\([^;]*;' |
        sed -E 's/(TEXT|NUMBER)\(.*//' | grep -oE '"[a-z-]+"' | tr -d '"'
}

events_in_the_manual() {
    sed -n '/^\.Sh DIAGNOSTICS/,/^\.Sh EXAMPLES/s/^\.It Li//p' docs/persister.1 |
        tr -d ' ' | tr , '\n'
}

# The first column of the table under "The log", and whatever is called an event elsewhere.
events_in_operating() {
    sed -n '/^### The log/,/^### shmdump/p' docs/operating.md | grep '^| `' | cut -d'|' -f2 |
        grep -oE '`[a-z-]+' | tr -d '`'
    grep -oE "events? \`[a-z-]+" docs/operating.md | sed 's/.*`//'
}

every_event_and_kind_is_in_the_manual_and_in_the_code() {
    events_logged | lacking "$(events_in_the_manual)" | sed 's/$/ in docs\/persister.1/'
    for event in $(events_in_the_manual; events_in_operating); do
        grep -qF "\"$event\"" tools/*.c || echo "event $event in tools/"
    done
    for kind in $(grep -ohE '\bkind=[a-z-]+' $texts docs/*.1 | sed 's/kind=//' | sort -u); do
        grep -qF "return \"$kind\"" tools/persister_redis.c || echo "kind=$kind in tools/"
    done
}

every_metric_and_function_in_the_texts_exists() {
    for name in $(cat $texts docs/*.1 docs/prometheus-alerts.yml |
        grep -oE '\bsesstab_[a-z_]*[a-z]' | sed -E 's/_(bucket|sum|count)$//' | sort -u); do
        grep -qE "\b$name\b" lib/sesstab.h tools/*.[ch] || echo "$name"
    done
}

# In guarantees.md, "`file_test`: name, name; ..."; hz stands for hazards_test.
every_test_in_the_guarantees_exists() {
    sed 's/\bhz: /`hazards_test`: /g' docs/guarantees.md |
        grep -oE '`[a-z_]+_test`: [^;|`]*' | tr -d '`' |
        while IFS=: read -r file names; do
            [ -e "tests/$file.c" ] || echo "tests/$file.c"
            for name in $(echo "$names" | grep -oE '[a-z0-9]+(_[a-z0-9]+)+'); do
                grep -qF "void $name(void **state)" "tests/$file.c" || echo "$name in tests/$file.c"
            done
        done
}

every_file_and_target_in_the_texts_exists() {
    for path in $(cat $texts | grep -oE '`[a-z]+(/[a-z_]+)*\.[ch]`' | tr -d '`' | sort -u); do
        [ -e "$path" ] || [ -n "$(find lib shm tools tests -name "$path")" ] || echo "$path"
    done
    targets=$(cat Makefile docs/*/*/*.mk */*.mk tests/*/*.mk | grep -oE '^[a-z-]+:' | tr -d :)
    cat $texts | grep -oE '(`|^ +)make [a-z-]+' | sed 's/.*make //' | lacking "$targets" |
        sed 's/^/make /'
}

# An anchor is its heading, in small letters, with hyphens for blanks and without anything else.
anchors() { grep -E '^#+ ' "$1" | sed -E 's/^#+ //' | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n_-'; }

every_link_in_the_texts_leads_somewhere() {
    for text in $texts docs/performance.md docs/models.md; do
        grep -oE '\]\([^)]*\)' "$text" | tr -d '])(' | grep -v '^http' |
            while IFS='#' read -r file anchor; do
                file=${file:+$(dirname "$text")/}${file:-$text}
                [ -e "$file" ] || echo "$file ($text)"
                [ -z "$anchor" ] || anchors "$file" | grep -qxF "$anchor" ||
                    echo "#$anchor ($text)"
            done
    done
}

for check in man_pages_and_help_name_the_same_options every_option_in_the_texts_exists \
    every_event_and_kind_is_in_the_manual_and_in_the_code \
    every_metric_and_function_in_the_texts_exists every_test_in_the_guarantees_exists \
    every_file_and_target_in_the_texts_exists \
    every_link_in_the_texts_leads_somewhere; do
    missing=$($check)
    if [ -z "$missing" ]; then
        echo "[       OK ] $check"
    else
        echo "$missing" | sed 's/^/    there is no /'
        echo "[  FAILED  ] $check"
        failed=$((failed + 1))
    fi
done
[ $failed -eq 0 ] || echo " $failed FAILED TEST(S)"
exit $((failed > 0))
