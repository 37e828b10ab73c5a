set -eu
cd "$ROOT"
files=$(find usr etc -xdev | wc -l)
[ "$files" -gt 2 ] || { echo "/usr and /etc are empty: nothing to look at"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tree_in "$folder" > "$folder/names"
{
    printf 'tmp\nvar/tmp\ndev/shm\nrun/lock\nrun/user\n'
    find . -xdev -mindepth 1 ! -type l ! -type c \( ! -uid 0 -o -perm -0002 -o -perm -0020 $(foreign 0) \) -printf '%P\n'
} > "$folder/open"
bad=$({
    find usr etc -xdev \( ! -uid 0 -o ! -type l -perm -0020 \) -printf '/%p\tbelongs to %U:%G, mode %m\n'
    # A link is as safe as the place that it leads to.
    awk -v tree="$folder/tree" -v open="$folder/open" "$follow"'
        FILENAME == open { writable[$0] = 1; next }
        END {
            for (one in link) if (one ~ /^(usr|etc)\//)
                for (to = end(one); to != ""; sub(/(^|\/)[^\/]*$/, "", to)) if (to in writable) { print "/" one "\tleads to a place that others may write to, /" to; break }
        }' "$folder/tree" "$folder/open"
} | sort |
    awk -F'\t' -v allow="$PARAM_ALLOW" '
        BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
        !allowed[$1] {print $1 ": " $2}')
if [ -n "$bad" ]; then
    printf 'not root'"'"'s alone:\n%s\n' "$bad"
    exit 1
fi
echo "$files paths under /usr and /etc belong to root, and no group may write to them"
