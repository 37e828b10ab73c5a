set -eu
enable systemd-timesyncd.service
