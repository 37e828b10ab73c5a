set -eu
find "$ROOT" -xdev -type f -perm /6000 -printf '/%P\n' | grep -vxF -e "$PARAM_ALLOW" | while IFS= read -r file; do
    chmod ug-s -- "$ROOT$file"
done
