set -eu
enable apt-daily.timer apt-daily-upgrade.timer
