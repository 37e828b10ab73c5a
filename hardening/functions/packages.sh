# Compares a tree with what packages brought into it, by dpkg's database in the tree. Stands in $ROOT.

# Where folders were joined (/bin to /usr/bin), older packages name their files without /usr.
joined='^(bin|sbin|lib|lib32|lib64|libx32|libo32)/'
[ -L "$ROOT/bin" ] || joined='^$'

# Each writes files into FOLDER, of paths without their first slash: those of $BROUGHT_IN, where run-checks.sh has made them
# once for all checks.
# brought_in FOLDER: `listed`, what packages brought, and `declared`, the files of the definition and of those it is built on.
brought_in() {
    if [ -d "${BROUGHT_IN-}" ]; then
        cp "$BROUGHT_IN/listed" "$BROUGHT_IN/declared" "$1/"
        return
    fi
    find var/lib/dpkg/info var/lib/dpkg/status.d -maxdepth 1 -type f \( -name '*.list' -o -name '*.md5sums' \) -exec cat -- {} + 2>/dev/null |
        sed -E -e 's#^[0-9a-f]{32}  ##' -e 's#^(\./|/)##' -e "s#$joined#usr/&#" | sort -u > "$1/listed"
    sed 's#^/##' "$DECLARED_FILES" | sort -u > "$1/declared"
}

# tree_in FOLDER: `tree`, a line KIND PATH TARGET for everything that is there, separated by tabs. Prints the names that no
# such line can hold.
tree_in() {
    if [ -d "${BROUGHT_IN-}" ]; then
        cp "$BROUGHT_IN/tree" "$1/"
        cat "$BROUGHT_IN/names"
        return
    fi
    find . -xdev -mindepth 1 \( -name '*[[:cntrl:]]*' -o -lname '*[[:cntrl:]]*' \) -fprintf "$1/odd" '%p\0' -o -printf '%y\t%P\t%l\n' > "$1/tree"
    tr '\1-\37\177' '?' < "$1/odd" | tr '\0' '\n' | sed 's#^\.\(.*\)$#\1: a control character in its name or target#'
}

# For awk. Reads `tree`, then `listed`, into there[PATH], link[PATH] and listed[PATH]. end(PATH): where a path leads within
# the image. brought(PATH): whether that is a package's. A folder is, where all that lies in it is a package's or the
# definition's, or where another check refuses what is not; packaged links also lead to state and settings, which grow:
# brought(PATH, 1) does not accept that of them.
follow='
    FILENAME == tree { split($0, column, "\t"); there[column[2]] = column[1]; if (column[1] == "l") link[column[2]] = column[3]; next }
    FILENAME == list { listed[$0] = 1; next }
    function end(rest,    at, part, slash, hops) {
        while (rest != "") {
            slash = index(rest, "/"); part = slash ? substr(rest, 1, slash - 1) : rest; rest = slash ? substr(rest, slash + 1) : ""
            if (part == "" || part == ".") continue
            if (part == "..") { if (!sub(/\/[^\/]*$/, "", at)) at = ""; continue }
            part = at == "" ? part : at "/" part
            if (!(part in link)) { at = part; continue }
            if (++hops > 40) return "a loop of links"
            if (link[part] ~ /^\//) at = ""
            rest = link[part] "/" rest
        }
        return at
    }
    function is_folder(path) { return path == "" || path in there && there[path] == "d" } # awk makes what it is asked for
    function mixed(folder,    path) {
        if (!compared++)
            for (path in there)
                if (there[path] != "d" && !(path in listed) && !(path in declared)) while (sub(/\/[^\/]*$/, "", path)) holds[path] = 1
        return folder in holds
    }
    function brought(path, strict,    own) {
        own = path in listed && !strict
        path = end(path)
        if (path == "") return 0
        if (is_folder(path) && path !~ /^usr\/((bin|sbin|games|lib|lib32|lib64|libx32|libexec)(\/|$)|share\/.)/ &&
            !(own && path ~ /^(etc|run|var)(\/|$)/) && mixed(path)) return 0
        return path in listed || (!(path in there) && path ~ /^(usr|etc)\// && path !~ /^usr\/local\//)
    }'

# refused: of the lines `PATH: WHAT` on standard input those that no pattern in `allow` names.
refused() {
    awk '
        BEGIN {
            count = split(ENVIRON["PARAM_ALLOW"], patterns, "\n")
            for (i = 1; i <= count; i++) {
                gsub(/[][\\.+^$|(){}]/, "\\\\&", patterns[i]); gsub(/[*]/, ".*", patterns[i]); gsub(/[?]/, ".", patterns[i])
            }
        }
        {
            path = $0; sub(/: .*/, "", path)
            for (i = 1; i <= count; i++) if (path ~ ("^(" patterns[i] ")$")) next
            print
        }'
}
