set -eu
cd "$ROOT"
[ -s etc/passwd ] && [ ! -L etc/passwd ] || { echo "/etc/passwd is missing: nothing to look at"; exit 1; }
base=$(realpath -- .)
bad=$(
    awk -F: '$1 == "root" || ($3 >= 1000 && $3 != 65534) {print $1, $3, $6}' etc/passwd | while read -r name uid home; do
        if [ ! -d ".$home" ] || [ -L ".$home" ]; then
            echo "$name: home $home is missing, or a link"
            continue
        fi
        case $(realpath -- ".$home") in
            "${base%/}"/*) ;;
            *) echo "$name: home $home leads out of the image" && continue ;;
        esac
        [ "$(stat -c %u ".$home")" = "$uid" ] || echo "$name: $home belongs to number $(stat -c %u ".$home")"
        open=$(find ".$home" -maxdepth 0 -perm /0027 -printf '%m')
        [ -z "$open" ] || echo "$name: $home has mode $open, more open than 0750"
        find ".$home" -xdev -mindepth 1 -maxdepth 1 -name '.*' ! -type l -perm /0022 -printf "$name: $home/%P can be written by others\n"
        find ".$home" -xdev -mindepth 1 -maxdepth 1 -name '.*' ! -uid "$uid" ! -uid 0 -printf "$name: $home/%P belongs to number %U\n"
        for file in .rhosts .shosts .forward; do
            if [ -e ".$home/$file" ]; then echo "$name: $home/$file lets others in"; fi
        done
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "home directories of root and of $(awk -F: '$3 >= 1000 && $3 != 65534' etc/passwd | wc -l) accounts are private"
