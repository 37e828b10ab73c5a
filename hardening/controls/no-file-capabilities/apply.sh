# Takes the capabilities from what packages bring. Packages set them with setcap, so it is here where there are any.
set -eu
command -v getcap >/dev/null && command -v setcap >/dev/null || exit 0
base=${ROOT%/}
find "$ROOT" -xdev -type f -perm /0111 -exec getcap -- {} + | sed 's/ [^ ]*$//' | while IFS= read -r found; do
    file=${found#"$base"}
    ! printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "$file" || continue
    # Older packages name their files without /usr, where the directories were joined.
    if grep -qsxF -e "$file" -e "${file#/usr}" "$base"/var/lib/dpkg/info/*.list; then
        setcap -r "$found"
    fi
done
