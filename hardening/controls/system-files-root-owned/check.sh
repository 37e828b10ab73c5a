set -eu
cd "$ROOT"
files=$(find usr etc -xdev | wc -l)
[ "$files" -gt 2 ] || { echo "/usr and /etc are empty: nothing to look at"; exit 1; }
bad=$(find usr etc -xdev \( ! -uid 0 -o ! -type l -perm -0020 \) -printf '/%p\tbelongs to %U:%G, mode %m\n' | sort |
    awk -F'\t' -v allow="$PARAM_ALLOW" '
        BEGIN {split(allow, names, "\n"); for (i in names) allowed[names[i]] = 1}
        !allowed[$1] {print $1 ": " $2}')
if [ -n "$bad" ]; then
    printf 'not root'"'"'s alone:\n%s\n' "$bad"
    exit 1
fi
echo "$files paths under /usr and /etc belong to root, and no group may write to them"
