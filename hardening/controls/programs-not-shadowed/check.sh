set -eu
cd "$ROOT"
fail() { echo "$*"; exit 1; }
packaged=$(find usr/bin usr/sbin -xdev ! -type d -printf '%f\n' 2>/dev/null | sort -u)
before=$(find usr/local/bin usr/local/sbin -maxdepth 1 -xdev ! -type d -printf '%f /%p\n' 2>/dev/null | sort -u || true)
[ -n "$(find usr -xdev ! -type d 2>/dev/null | head -n 1)" ] || fail "no files in /usr: nothing to look at"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
find var/lib/dpkg/info -maxdepth 1 -type f -name '*.list' -exec cat -- {} + 2>/dev/null |
    sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' | sort -u > "$folder/listed"
bad=$(
    printf '%s\n' "$before" | while read -r name path; do
        [ -n "$name" ] || continue
        ! printf '%s\n' "$packaged" | grep -qxF -e "$name" || echo "$path: stands before the packaged $name"
    done
    find etc/alternatives -maxdepth 1 -type l -printf '%p %l\n' 2>/dev/null | while read -r name target; do
        case $target in
            /usr/local/* | /tmp/* | /var/* | /home/* | /root/* | /opt/* | /srv/* | /dev/* | /run/* | */../* | [!/]*) echo "/$name: leads to $target, which no package brought" ;;
        esac
    done
    find usr/bin usr/sbin -xdev ! -type d -printf '/%p\n' 2>/dev/null | sort -u | comm -23 - "$folder/listed" | while IFS= read -r file; do
        # What maintainer scripts make: links to what is packaged, in /etc/alternatives or beside it.
        if [ -L ".$file" ]; then
            case $(readlink -- ".$file") in /etc/alternatives/*/* | [!/]*/*) ;; /etc/alternatives/* | [!/]*) continue ;; esac
        fi
        echo "$file: no package brought it"
    done
)
bad=$(printf '%s\n' "$bad" | while IFS= read -r line; do
    [ -n "$line" ] || continue
    printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "${line%%: *}" || echo "$line"
done)
[ -z "$bad" ] || fail "$bad"
echo "$(printf '%s\n' "$packaged" | grep -c . || true) programs, and none of another's stands before or among them"
