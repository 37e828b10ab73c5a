set -eu
find "$ROOT" -xdev -path "${ROOT%/}/dev" -prune -o ! -type l -perm -0002 ! \( -type d -perm -1000 \) -printf '/%P\n' |
    grep -vxF -e "$PARAM_ALLOW" | while IFS= read -r path; do
    chmod o-w -- "$ROOT$path"
done
