# What apply.sh scripts write into files that packages and others write too.

# append FILE LINE: adds the line at the end, on a line of its own also where the last one lacks its line break.
append() {
    [ -z "$(tail -c 1 "$1" 2>/dev/null)" ] || echo >> "$1"
    printf '%s\n' "$2" >> "$1"
}
