set -eu
cd "$ROOT"
find usr etc -xdev ! -type l -perm -0020 -exec chmod g-w -- {} +
# Settings that a package gives to its own account, where the account reads them by its group as well.
find etc -xdev ! -type l ! -uid 0 ! -gid 0 \( -type d -perm -0050 -o -type f -perm -0040 \) -printf '/%p\n' | grep -vxF -e "$PARAM_ALLOW" | while IFS= read -r path; do
    if grep -qsxF -e "$path" var/lib/dpkg/info/*.list; then chown 0 -- "${path#/}"; fi
done
