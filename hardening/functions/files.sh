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

# foreign GROUP…: for find, that the group of a file is none of these, for they are root's. The groups of the image's own user
# are not: it writes what they may. A number without an account starts in group 0. Stands in $ROOT.
foreign() {
    own=$(for file in passwd group; do
        if [ -f "etc/$file" ] && [ ! -L "etc/$file" ]; then sed "s/^/$file:/" "etc/$file"; fi
    done | awk -F: '
        BEGIN { split(ENVIRON["IMAGE_USER"], wanted, ":"); uid = wanted[1]; gid = 0 }
        $1 == "passwd" && name == "" && ($2 == wanted[1] || $4 == wanted[1]) { name = $2; uid = $4; gid = $5 }
        $1 == "group" && $2 == wanted[2] { named = $4 }
        $1 == "group" && name != "" && index("," $5 ",", "," name ",") { more = more " " $4 }
        END { if (wanted[1] != "" && uid != "0") print (wanted[2] == "" ? gid : named == "" ? wanted[2] : named) more }')
    for group; do
        case " $own " in *" $group "*) ;; *) printf ' ! -gid %s' "$group" ;; esac
    done
}
