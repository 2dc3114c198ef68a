# gnuplot -c bench/growth.gp FIGURES FOLDER: bytes per session and longest pauses as a table grows.
# FIGURES: the curve of growth_bench as `report --tsv` writes it.

figures = ARG1
folder = ARG2
curve(row, who) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" { print $4, $6 }' %s", row, who, figures)

set grid
set xlabel "sessions"
set format x "%.1s%c"
set style data lines

do for [type in "svg png"] {
    if (type eq "svg") {
        set terminal svg size 900,1000 font "sans,12" background "white"
    } else {
        set terminal pngcairo size 1350,1500 font "sans,14"
    }
    set output folder . "/growth." . type
    set multiplot layout 3,1
    set key inside right top
    set title "Bytes per session, all of the segment counted"
    set ylabel "bytes"
    unset logscale
    set yrange [300:500]
    plot curve("bytes", "sesstab") title "sesstab" linewidth 2, 400 title "goal" dashtype 3
    set title "Longest own pause in each step (without waiting for a processor): who writes"
    set ylabel "microseconds"
    set logscale y
    set yrange [1:100000]
    plot curve("own-pause", "writer") title "growing table" linewidth 2, \
         curve("own-pause", "writer-growth-step") title "growth steps alone" linewidth 2, \
         curve("own-pause", "writer-still") title "still table", \
         curve("own-pause", "writer-clock") title "clock only" dashtype 2, \
         1000 title "goal" dashtype 3
    set title "The same: who reads"
    plot curve("own-pause", "readers") title "growing table" linewidth 2, \
         curve("own-pause", "readers-still") title "still table", \
         curve("own-pause", "readers-clock") title "clock only" dashtype 2, \
         1000 title "goal" dashtype 3
    unset multiplot
    unset output
}
