set -eu
cd "$ROOT"
[ -n "$(ls etc)" ] || { echo "/etc is empty: nothing to look at"; exit 1; }
bad=$(
    for key in etc/ssh/ssh_host_*; do
        if [ -e "$key" ] || [ -L "$key" ]; then echo "/$key: a host key"; fi
    done
    for file in etc/machine-id var/lib/dbus/machine-id; do
        [ -f "$file" ] && [ ! -L "$file" ] && [ -s "$file" ] || continue
        [ "$(cat "$file")" = uninitialized ] || echo "/$file: a machine id"
    done
    for file in etc/hostname etc/resolv.conf; do
        if [ -f "$file" ] && [ ! -L "$file" ] && [ -s "$file" ]; then echo "/$file: of the machine that built the image"; fi
    done
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "no host keys, no machine id, no host name and no name servers in $(ls etc | wc -l) entries of /etc"
