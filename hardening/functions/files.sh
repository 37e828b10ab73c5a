# Files that packages and others write too.

# append FILE LINE: adds the line at the end, on a line of its own also where the last one lacks its line break.
append() {
    [ -z "$(tail -c 1 "$1" 2>/dev/null)" ] || echo >> "$1"
    printf '%s\n' "$2" >> "$1"
}

# masks FILE…: the umasks that these start-up files of shells set, one a line.
masks() {
    sed -n "s/^[^#]*\bumask[[:space:]]\{1,\}[\"']\{0,1\}\([^\"'[:space:];&|)]*\).*/\1/p" "$@" 2>/dev/null || true
}
