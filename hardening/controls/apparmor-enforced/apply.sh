set -eu
enable apparmor.service
