set -eu
cd "$ROOT"
mkdir -p root
chmod 0700 root
[ -f etc/passwd ] && [ ! -L etc/passwd ] || exit 0
awk -F: '$3 >= 1000 && $3 != 65534 {print $3, $6}' etc/passwd | while read -r uid home; do
    [ "$home" != / ] && [ -d ".$home" ] && [ ! -L ".$home" ] || continue
    chown "$uid" ".$home"
    chmod g-w,o-rwx ".$home"
    find ".$home" -xdev -mindepth 1 -maxdepth 1 -name '.*' ! -type l -exec chmod go-w -- {} +
done
