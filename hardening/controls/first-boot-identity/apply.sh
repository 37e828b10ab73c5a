set -eu
cd "$ROOT"
rm -rf -- var/lib/dbus/machine-id var/lib/systemd/random-seed var/lib/systemd/credential.secret var/lib/cloud/instance \
    var/lib/cloud/instances var/lib/cloud/data etc/netplan/50-cloud-init.yaml
for leases in var/lib/dhcp var/lib/dhcpcd var/lib/systemd/network; do
    [ ! -d "$leases" ] || [ -L "$leases" ] || find "$leases" -xdev -mindepth 1 -delete
done
if [ ! -f etc/machine-id ] || [ -L etc/machine-id ] || [ -s etc/machine-id ]; then
    rm -f etc/machine-id
    : > etc/machine-id
fi
[ "$(stat -c %a etc/machine-id)" = 444 ] || chmod 0444 etc/machine-id
