# gnuplot -c bench/growth.gp FIGURES FOLDER: bytes per session and longest pauses as a table grows.
# FIGURES: the curve of growth_bench as `report --tsv` writes it.

figures = ARG1
folder = ARG2
curve(row, who) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" { print $4, $6 }' %s", row, who, figures)

set grid
set key outside right top
set xlabel "sessions"
set format x "%.1s%c"
set style data lines

do for [type in "svg png"] {
    if (type eq "svg") {
        set terminal svg size 800,700 font "sans,12" background "white"
    } else {
        set terminal pngcairo size 1200,1000 font "sans,12"
    }
    set output folder . "/growth." . type
    set multiplot layout 2,1
    set title "Bytes per session, all of the segment counted"
    set ylabel "bytes"
    unset logscale
    set yrange [0:*]
    plot curve("bytes", "sesstab") title "sesstab" linewidth 2
    set title "Longest own pause in each step (without waiting for a processor)"
    set ylabel "microseconds"
    set logscale y
    set yrange [*:*]
    plot for [who in "writer readers"] curve("own-pause", who) title who linewidth 2, \
         for [who in "writer readers"] curve("own-pause", who . "-clock") title who . ", clock only" dashtype 2
    unset multiplot
    unset output
}
