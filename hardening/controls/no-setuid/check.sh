set -eu
files=$(find "$ROOT" -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
found=$(find "$ROOT" -xdev -type f -perm /6000 -printf '/%P\n' | sort)
bad=$(printf '%s\n' "$found" | grep -vxF -e "$PARAM_ALLOW" -e '' || true)
if [ -n "$bad" ]; then
    printf 'setuid or setgid, and not in allow:\n%s\n' "$bad"
    exit 1
fi
echo "$files files; setuid or setgid and allowed: ${found:-none}"
