set -eu
cd "$ROOT"
rm -f -- etc/ssh/ssh_host_*_key etc/ssh/ssh_host_*_key.pub var/lib/dbus/machine-id
if [ -s etc/machine-id ] && [ ! -L etc/machine-id ]; then : > etc/machine-id; fi
# Inside a container these two are mounts of its runtime, which cannot be removed and are no part of the image.
rm -f -- etc/hostname etc/resolv.conf 2>/dev/null || true
