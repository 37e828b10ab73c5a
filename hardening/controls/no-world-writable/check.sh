# /dev is left out: the container's runtime mounts its own.
set -eu
files=$(find "$ROOT" -xdev ! -type d | wc -l)
[ "$files" -gt 0 ] || { echo "no files: nothing to look at"; exit 1; }
all=$(find "$ROOT" -xdev -path "${ROOT%/}/dev" -prune -o \( ! -type l -perm -0002 -o -type b -o -type c \) -printf '%y %m /%P\n')
bad=$(printf '%s\n' "$all" | while read -r kind mode path; do
    [ -n "$kind" ] || continue
    if [ "$kind" = d ] && printf '%s\n' "$PARAM_ALLOW" | grep -qxF -e "$path"; then
        case $mode in 1???) continue ;; esac
    fi
    # Files of many accounts, as php-common brings the folder: nobody may list it, nor remove another's.
    if [ "$kind $mode $path" = "d 1733 /var/lib/php/sessions" ] && [ "$(stat -c %u -- "$ROOT$path")" = 0 ]; then
        ! grep -qsxF -e "$path" "$ROOT"/var/lib/dpkg/info/*.list || continue
    fi
    # The engine of a host keeps what a layer removes as a device that is none.
    [ "$kind" != c ] || [ "$(stat -c %t:%T -- "$ROOT$path")" != 0:0 ] || continue
    echo "$path (mode $mode)"
done)
if [ -n "$bad" ]; then
    printf 'writable by everyone, or a device:\n%s\n' "$bad"
    printf '%s\n' "$bad" | sed 's/ (mode [0-7]*)$//' | while IFS= read -r path; do
        if [ -d "$ROOT$path" ]; then
            echo 'give a folder to the account that writes there, with mode 0750; or let it have the sticky bit and list it in `allow` of this control, in a profile of the checkout or of a root in judging.roots'
            break
        fi
    done
    exit 1
fi
# What is made so at boot: without the sticky bit, and no device.
boot=$(cd "$ROOT" && grep -rsE '^[[:space:]]*[dDevqQfFpCzZm][^[:space:]]*[[:space:]]+[^[:space:]]+[[:space:]]+[~:]*[0246]?[0-7]{2}[2367]([[:space:]]|$)' \
    etc/tmpfiles.d usr/local/lib/tmpfiles.d usr/lib/tmpfiles.d | grep -vE ':[[:space:]]*[^[:space:]]+[[:space:]]+/dev/' || true)
if [ -n "$boot" ]; then
    printf 'made writable by everyone at boot:\n%s\n' "$boot"
    exit 1
fi
echo "$files files; writable by everyone, sticky and allowed: ${all:-none}"
