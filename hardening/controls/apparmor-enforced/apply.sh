set -eu
cd "$ROOT"
wants=etc/systemd/system/sysinit.target.wants
[ -d "$wants" ] || mkdir -p "$wants"
unit=/usr/lib/systemd/system/apparmor.service
[ "$(readlink "$wants/apparmor.service" || true)" = "$unit" ] || ln -sf "$unit" "$wants/apparmor.service"
if [ -L etc/systemd/system/apparmor.service ]; then rm etc/systemd/system/apparmor.service; fi
