set -eu
cd "$ROOT"
files=$(find usr etc -xdev | wc -l)
[ "$files" -gt 2 ] || { echo "/usr and /etc are empty: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tree_in "$folder" > "$folder/names"
brought_in "$folder"
{
    printf 'tmp\nvar/tmp\ndev/shm\nrun/lock\nrun/user\n'
    find . -xdev -mindepth 1 ! -type l ! -type c \( ! -uid 0 -o -perm -0002 -o -perm -0020 $(foreign 0) \) -printf '%P\n'
} > "$folder/open"
bad=$({
    find usr etc -xdev \( ! -uid 0 -o ! -type l -perm -0020 \) -printf '/%p\tbelongs to %U:%G, mode %m\n'
    # A link is as safe as the place that it leads to. Outside of /usr and /etc the account that runs may have data of its own,
    # and a link that is called so, or that a package brought, may lead to what everybody writes.
    awk -v tree="$folder/tree" -v list="$folder/listed" -v open="$folder/open" "$follow"'
        FILENAME == open { writable[$0] = 1; next }
        function passes_data(name) {
            sub(/.*\//, "", name)
            return tolower(name) ~ /(^|[._-])(te?mp|shm|caches?|logs?|run|spool|sessions?|sock(et)?s?|pids?|locks?)$/
        }
        END {
            everybody = "^(tmp|var/tmp|dev/shm)(/|$)"
            for (path in link) {
                to = end(path)
                if (path !~ /^(usr|etc)\// && (to !~ everybody || path ~ everybody || path in listed || passes_data(path))) continue
                for (; to != ""; sub(/(^|\/)[^\/]*$/, "", to)) if (to in writable) { print "/" path "\tleads to a place that others may write to, /" to; break }
            }
        }' "$folder/tree" "$folder/listed" "$folder/open"
} | sort |
    awk -F'\t' -v allow="$PARAM_ALLOW" '
        BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
        !allowed[$1] {print $1 ": " $2}')
if [ -n "$bad" ]; then
    printf 'not root'"'"'s alone:\n%s\n' "$bad"
    exit 1
fi
echo "$files paths under /usr and /etc belong to root, no group may write to them, and no link leads to what everybody writes"
