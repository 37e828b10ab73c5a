set -eu
files=$(find "$ROOT" -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(find "$ROOT" -xdev -type f -perm /6000 -printf '/%P\n' | sort)
bad=$(printf '%s\n' "$found" | grep -vxF -e "$PARAM_ALLOW" -e '' || true)
if [ -n "$bad" ]; then
    printf 'setuid or setgid, and not in allow:\n%s\n' "$bad"
    exit 1
fi
boot=$(cd "$ROOT" && grep -rsE '^[[:space:]]*([fFC][^[:space:]]*[[:space:]]+[^[:space:]]+[[:space:]]+[~:]*[2-7]|[zZm][^[:space:]]*[[:space:]]+[^[:space:]]+[[:space:]]+[~:]*[4-7])[0-7]{3}([[:space:]]|$)' \
    etc/tmpfiles.d usr/local/lib/tmpfiles.d usr/lib/tmpfiles.d || true)
if [ -n "$boot" ]; then
    printf 'made setuid or setgid at boot:\n%s\n' "$boot"
    exit 1
fi
echo "$files files; setuid or setgid and allowed: ${found:-none}"
