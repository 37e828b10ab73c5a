set -eu
enable nftables.service
