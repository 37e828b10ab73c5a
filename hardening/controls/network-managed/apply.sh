set -eu
enable systemd-networkd.service systemd-resolved.service
