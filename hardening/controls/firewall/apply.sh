set -eu
cd "$ROOT"
wants=etc/systemd/system/sysinit.target.wants
[ -d "$wants" ] || mkdir -p "$wants"
unit=/usr/lib/systemd/system/nftables.service
[ "$(readlink "$wants/nftables.service" || true)" = "$unit" ] || ln -sf "$unit" "$wants/nftables.service"
if [ -L etc/systemd/system/nftables.service ]; then rm etc/systemd/system/nftables.service; fi
