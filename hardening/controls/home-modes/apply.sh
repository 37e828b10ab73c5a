set -eu
cd "$ROOT"
[ -d root ] || mkdir root
[ "$(stat -c %a root)" = 700 ] || chmod 0700 root
base=$(realpath -- .)
[ -f etc/passwd ] && [ ! -L etc/passwd ] || exit 0
awk -F: '$3 >= 1000 && $3 != 65534 {print $3, $6}' etc/passwd | while read -r uid home; do
    [ "$home" != / ] && [ -d ".$home" ] && [ ! -L ".$home" ] || continue
    case $(realpath -- ".$home") in "${base%/}"/*) ;; *) continue ;; esac
    find ".$home" -maxdepth 0 ! -uid "$uid" -exec chown -- "$uid" {} +
    find ".$home" -maxdepth 0 -perm /0027 -exec chmod g-w,o-rwx -- {} +
    find ".$home" -xdev -mindepth 1 -maxdepth 1 -name '.*' ! -type l -perm /0022 -exec chmod go-w -- {} +
done
