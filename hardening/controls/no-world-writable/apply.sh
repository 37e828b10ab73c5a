# Closes what packages bring open. What somebody opened on purpose stays, for the check to refuse: closed silently, it
# would only fail later, elsewhere.
set -eu
base=${ROOT%/}
find "$ROOT" -xdev -path "$base/dev" -prune -o ! -type l -perm -0002 ! \( -type d -perm -1000 \) -printf '/%P\n' |
    grep -vxF -e "$PARAM_ALLOW" | while IFS= read -r path; do
    if grep -qsxF -e "$path" -e "${path#/usr}" "$base"/var/lib/dpkg/info/*.list; then
        chmod o-w -- "$base$path"
    fi
done
