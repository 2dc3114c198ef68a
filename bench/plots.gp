# Plots of table_bench's figures.  Set before: format ("svg" or "png"), plots (the directory that holds
# figures.tsv: bench, row, contender, size, pages, median, low, high, unit).

if (format eq "svg") set terminal svg size 720,430 noenhanced font "sans,12" background "white"; \
else set terminal pngcairo size 1200,720 noenhanced font "sans,12"

file(name) = plots . "/" . name . "." . format
rows(row, contender, pages) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $5 == \"%s\" { print $4, $6, $7, $8 }' %s/figures.tsv | sort -n", row, contender, pages, plots)
at_size(row, contender, size) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $4 == %s && $5 == \"4k\" { print $6, $7, $8 }' %s/figures.tsv", row, contender, size, plots)

tables = "floor sesstab seqlock rwlock boost lmdb lfht-memb lfht-qsbr ck_ht apcu memcached redis"
near   = "floor sesstab seqlock rwlock boost lmdb lfht-memb lfht-qsbr ck_ht"
few    = "floor sesstab seqlock lfht-memb"
sizes  = system("awk -F'\\t' '$5 == \"4k\" { print $4 }' " . plots . "/figures.tsv | sort -nu | tr '\\n' ' '")
smallest = word(sizes, 1)
largest = word(sizes, words(sizes))
middle  = word(sizes, (words(sizes) + 1) / 2)

# Each table has its colour in all plots; ours is the thick green one.
array colours[12] = [0x888888, 0x009e73, 0x0072b2, 0xe69f00, 0xb8860b, 0x000000, \
                     0xd55e00, 0xf0a080, 0xcc79a7, 0x9467bd, 0x8c564b, 0xc00000]
number_in(list, name) = number_from(list, name, 1)
number_from(list, name, i) = i > words(list) ? 1 : word(list, i) eq name ? i : number_from(list, name, i + 1)
rgb(table) = colours[number_in(tables, table)]
thick(table) = table eq "sesstab" ? 3 : 1

set grid ytics
set style data linespoints
set pointsize 0.6
set format y "%.0f"

# A table without figures would stop gnuplot: only those that have some.
has(row, contender, pages) = int(system(sprintf("awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $5 == \"%s\" { n++ } END { print n + 0 }' %s/figures.tsv", row, contender, pages, plots)))
with_row(row, list, pages) = with_row_from(row, list, pages, 1)
with_row_from(row, list, pages, i) = i > words(list) ? "" : (has(row, word(list, i), pages) ? word(list, i) . " " : "") . with_row_from(row, list, pages, i + 1)

# ---------------------------------------------------------------- by size

set key outside right top
set logscale xy
set xrange [smallest / 1.5:largest * 1.5]
set format x "%.0s%c"
set xlabel "sessions"
set ylabel "nanoseconds"

do for [row in "get-view get-copy get-dependent touch metadata-set insert+remove scan"] {
    set output file(row)
    set title row . ", one worker: median, least and most of rounds"
    list = with_row(row, near, "4k")
    if (words(list) > 0) {
        plot for [t in list] rows(row, t, "4k") using 1:2:3:4 with yerrorlines linewidth thick(t) linecolor rgb rgb(t) title t
    }
}

set output file("get-batch")
set title "get-view, one by one, and get-batch, 100 together; per session"
list = with_row("get-batch", few, "4k")
plot for [t in list] rows("get-view", t, "4k") using 1:2 linewidth thick(t) linecolor rgb rgb(t) title t, \
     for [t in list] rows("get-batch", t, "4k") using 1:2 linewidth thick(t) linecolor rgb rgb(t) dashtype 2 title t . ", 100"

set output file("huge-pages")
set title "get-dependent with pages of 4 KiB, and with huge ones"
list = with_row("get-dependent", few, "huge")
if (words(list) > 0) {
    plot for [t in list] rows("get-dependent", t, "4k") using 1:2 linewidth thick(t) linecolor rgb rgb(t) title t, \
         for [t in list] rows("get-dependent", t, "huge") using 1:2 linewidth thick(t) linecolor rgb rgb(t) dashtype 2 title t . ", huge"
}

# ---------------------------------------------------------------- at one size

unset logscale
unset format x
set format y "%.0f"
set style fill solid 0.8
set boxwidth 0.35
set xtics rotate by -35
set xlabel ""
set logscale y
columns(list) = words(list) - 0.5

set output file("everybody")
set title "get-copy among " . middle . " sessions, nanoseconds (each line is ten times the one below)"
list = with_row("get-copy", tables, "4k")
set xrange [-0.5:columns(list)]
unset key
plot for [i = 1:words(list)] at_size("get-copy", word(list, i), middle) using (i - 1):1:(0.7):xtic(word(list, i)) with boxes linecolor rgb rgb(word(list, i)), \
     for [i = 1:words(list)] at_size("get-copy", word(list, i), middle) using (i - 1):1:(sprintf("%.0f", $1)) with labels offset 0,0.6

set key outside right top
set output file("latency")
set title "get-view, p99.9, alone and beside a writer on the same " . middle . " sessions"
list = with_row("hammered-p99.9", near, "4k")
set xrange [-0.5:columns(list)]
plot for [i = 1:words(list)] at_size("idle-p99.9", word(list, i), middle) using (i - 1.2):1:(0.35):xtic(word(list, i)) with boxes linecolor rgb 0x56b4e9 title (i == 1 ? "idle" : ""), \
     for [i = 1:words(list)] at_size("hammered-p99.9", word(list, i), middle) using (i - 0.8):1:(0.35) with boxes linecolor rgb 0xd55e00 title (i == 1 ? "hammered" : "")

set output file("mix")
set title "95 % get, 5 % touch among " . middle . " sessions: one worker, two workers"
set ylabel "million operations a second"
set format y "%g"
list = with_row("mix-2", tables, "4k")
set xrange [-0.5:columns(list)]
plot for [i = 1:words(list)] at_size("mix-1", word(list, i), middle) using (i - 1.2):1:(0.35):xtic(word(list, i)) with boxes linecolor rgb 0x56b4e9 title (i == 1 ? "one" : ""), \
     for [i = 1:words(list)] at_size("mix-2", word(list, i), middle) using (i - 0.8):1:(0.35) with boxes linecolor rgb 0xd55e00 title (i == 1 ? "two" : "")
