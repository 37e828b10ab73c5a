set -eu
files=$(find "$ROOT" -xdev -type f | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
command -v getcap >/dev/null || { echo "getcap is not installed on this host: nothing could be looked at"; exit 1; }
base=${ROOT%/}
found=$(find "$ROOT" -xdev -type f -exec getcap -- {} + | while IFS= read -r line; do echo "${line#"$base"}"; done | sort)
bad=$(printf '%s\n' "$found" | while IFS= read -r line; do
    [ -n "$line" ] || continue
    printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line% *}" || echo "$line"
done)
if [ -n "$bad" ]; then
    printf 'file capabilities, and not in allow:\n%s\n' "$bad"
    exit 1
fi
echo "$files files; file capabilities that are allowed: ${found:-none}"
