set -eu
cd "$ROOT"
if [ "$LIVE" = 1 ]; then
    id=$(cat etc/machine-id)
    printf '%s\n' "$id" | grep -qxE '[0-9a-f]{32}' || { echo "the machine has no id of its own: ${id:-empty}"; exit 1; }
    [ -s var/lib/systemd/random-seed ] || { echo "no random seed was kept for the next boot"; exit 1; }
    echo "machine id $id"
    exit 0
fi
bad=$(
    if [ ! -f etc/machine-id ] || [ -L etc/machine-id ]; then
        echo "/etc/machine-id is absent, or a link: it must be there and empty"
    elif [ -s etc/machine-id ]; then
        echo "/etc/machine-id is not empty"
    fi
    for file in var/lib/systemd/random-seed var/lib/systemd/credential.secret var/lib/cloud/instance var/lib/cloud/instances var/lib/cloud/data \
        etc/netplan/50-cloud-init.yaml; do
        if [ -e "$file" ] || [ -L "$file" ]; then echo "/$file belongs to one machine"; fi
    done
    if [ -f var/lib/dbus/machine-id ] && [ ! -L var/lib/dbus/machine-id ]; then echo "/var/lib/dbus/machine-id belongs to one machine"; fi
    for leases in var/lib/dhcp var/lib/dhcpcd var/lib/systemd/network; do
        if [ -d "$leases" ]; then find "$leases" -xdev -mindepth 1 -printf "/$leases/%P belongs to one machine\n"; fi
    done
    parameters | grep -E '^systemd\.(machine_id|hostname)=' | sed 's/^/kernel parameter for all machines alike: /' || true
    comes_up systemd-random-seed.service
    if [ -e etc/cloud/cloud-init.disabled ]; then echo "/etc/cloud/cloud-init.disabled: nobody gets in"; fi
)
if [ -n "$bad" ]; then
    echo "$bad"
    exit 1
fi
echo "/etc/machine-id is empty; no seed, lease or instance of another machine"
