set -eu
cd "$ROOT"
files=$(find . -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
bad=$(
    for folder in var/lib/apt/lists var/cache/apt var/cache/dnf var/cache/yum var/cache/apk; do
        [ -d "$folder" ] && [ ! -L "$folder" ] || continue
        find "$folder" -xdev ! -type d -printf "/$folder/%P\n"
    done
    for cache in root/.cache root/.npm home/*/.cache home/*/.npm; do
        if [ -e "$cache" ]; then echo "/$cache"; fi
    done
)
if [ -n "$bad" ]; then
    printf 'caches of package managers:\n%s\n' "$bad"
    exit 1
fi
echo "no lists, archives or caches of apt, dnf, apk, pip and npm in $files files"
