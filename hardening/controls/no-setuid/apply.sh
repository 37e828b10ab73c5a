# Takes the bit from what packages bring. What somebody put there on purpose stays, for the check to refuse: a program
# that silently lost its bit would only fail later, elsewhere.
set -eu
base=${ROOT%/}
find "$ROOT" -xdev -type f -perm /6000 -printf '/%P\n' | grep -vxF -e "$PARAM_ALLOW" | while IFS= read -r file; do
    # Older packages name their files without /usr, where the directories were joined.
    if grep -qsxF -e "$file" -e "${file#/usr}" "$base"/var/lib/dpkg/info/*.list; then
        chmod ug-s -- "$base$file"
    fi
done
