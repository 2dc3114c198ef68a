# Plots of table_bench's figures.  Set before: format ("svg" or "png"), plots (the directory that holds
# figures.tsv: bench, row, contender, size, pages, median, low, high, unit).

if (format eq "svg") set terminal svg size 720,430 noenhanced font "sans,12" background "white"; \
else set terminal pngcairo size 1200,720 noenhanced font "sans,12"

file(name) = plots . "/" . name . "." . format
rows(row, contender, pages) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $5 == \"%s\" { print $4, $6, $7, $8 }' %s/figures.tsv | sort -n", row, contender, pages, plots)
at_size(row, contender, size) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $4 == %s && $5 == \"4k\" { print $6, $7, $8 }' %s/figures.tsv", row, contender, size, plots)

tables = "floor sesstab seqlock rwlock boost lmdb lfht-memb lfht-qsbr ck_ht apcu memcached redis"
near   = "floor sesstab seqlock rwlock boost lmdb lfht-memb lfht-qsbr ck_ht"
sizes  = system("awk -F'\\t' '$5 == \"4k\" { print $4 }' " . plots . "/figures.tsv | sort -nu | tr '\\n' ' '")
largest = word(sizes, words(sizes))
middle  = word(sizes, (words(sizes) + 1) / 2)

set key outside right top
set grid ytics
set style data linespoints
set pointsize 0.6
set linetype 9 linecolor rgb "gray40"
set linetype cycle 9
thick(table) = table eq "sesstab" ? 3 : 1

# A table without figures would stop gnuplot: only those that have some.
has(row, contender) = int(system(sprintf("awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" { n++ } END { print n + 0 }' %s/figures.tsv", row, contender, plots)))
with_row(row, list) = with_row_from(row, list, 1)
with_row_from(row, list, i) = i > words(list) ? "" : (has(row, word(list, i)) ? word(list, i) . " " : "") . with_row_from(row, list, i + 1)

# ---------------------------------------------------------------- by size

set logscale xy
set format x "%.0s %c"
set xlabel "sessions"
set ylabel "nanoseconds"

do for [row in "get-view get-copy get-dependent touch metadata-set insert+remove scan"] {
    set output file(row)
    set title row . ", one worker: median, least and most of rounds"
    list = with_row(row, near)
    if (words(list) > 0) {
        plot for [t in list] rows(row, t, "4k") using 1:2:3:4 with yerrorlines linewidth thick(t) title t
    }
}

set output file("get-batch")
set title "get-batch (100 at once) beside get-view, per session"
plot for [t in "sesstab lfht-memb seqlock"] rows("get-view", t, "4k") using 1:2 title t . " get-view", \
     for [t in "sesstab lfht-memb seqlock"] rows("get-batch", t, "4k") using 1:2 title t . " get-batch" dashtype 2

set output file("huge-pages")
set title "get-dependent with small pages and with huge ones"
plot for [t in "floor sesstab seqlock lfht-memb"] rows("get-dependent", t, "4k") using 1:2 title t . " 4k", \
     for [t in "floor sesstab seqlock lfht-memb"] rows("get-dependent", t, "huge") using 1:2 title t . " huge" dashtype 2

# ---------------------------------------------------------------- at one size

unset logscale
set format x
set style data histograms
set style histogram clustered
set style fill solid 0.8
set xtics rotate by -35
set xlabel ""
unset key
set logscale y

set output file("everybody")
set title "get-copy at " . middle . " sessions, servers and all"
list = with_row("get-copy", tables)
set xrange [-0.5:words(list) - 0.5]
plot for [i = 1:words(list)] at_size("get-copy", word(list, i), middle) using (i - 1):1:(0.7):xtic(word(list, i)) with boxes linecolor 1

set output file("latency")
set title "get-view, p99.9, alone and beside a writer on the same " . middle . " sessions"
list = with_row("hammered-p99.9", near)
set xrange [-0.5:words(list) - 0.5]
set key outside right top
plot for [i = 1:words(list)] at_size("idle-p99.9", word(list, i), middle) using (i - 1.2):1:(0.35):xtic(word(list, i)) with boxes linecolor 2 title (i == 1 ? "idle" : ""), \
     for [i = 1:words(list)] at_size("hammered-p99.9", word(list, i), middle) using (i - 0.8):1:(0.35) with boxes linecolor 7 title (i == 1 ? "hammered" : "")

set output file("mix")
set title "95 % get, 5 % touch at " . middle . " sessions: one worker, two workers"
set ylabel "million operations a second"
list = with_row("mix-2", tables)
set xrange [-0.5:words(list) - 0.5]
plot for [i = 1:words(list)] at_size("mix-1", word(list, i), middle) using (i - 1.2):1:(0.35):xtic(word(list, i)) with boxes linecolor 2 title (i == 1 ? "one" : ""), \
     for [i = 1:words(list)] at_size("mix-2", word(list, i), middle) using (i - 0.8):1:(0.35) with boxes linecolor 7 title (i == 1 ? "two" : "")
