set -eu
cd "$ROOT"
wants=etc/systemd/system/multi-user.target.wants
[ -d "$wants" ] || mkdir -p "$wants"
link=$wants/sysctl-reapply-network.service
[ "$(readlink "$link" || true)" = ../sysctl-reapply-network.service ] || ln -sf ../sysctl-reapply-network.service "$link"
