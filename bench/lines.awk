# Counts the lines of C files that hold more than blanks and comments.

FNR == 1 { files++; inside = 0 }
{
    gsub(/"([^"\\]|\\.)*"/, "text")  # what a string says is no comment
    code = ""
    while (length($0)) {
        mark = inside ? index($0, "*/") : index($0, "/*")
        if (!inside)
            code = code substr($0, 1, mark ? mark - 1 : length($0))
        if (!mark)
            break
        $0 = substr($0, mark + 2)
        inside = !inside
    }
    sub(/\/\/.*/, "", code)
    if (code ~ /[^ \t]/)
        lines++
}
END { printf "%-14s %6d %6d\n", folder, files, lines }
